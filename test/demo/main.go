// Command demo is the main job before one's eyes: simulated hosts with real
// OVS, the shipped conflist on each, and who reaches whom.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() { os.Exit(run()) }

func run() int {
	hosts := flag.Int("hosts", 3, "how many hosts, 2 to 50")
	file := flag.String("conflist", "conflist/gre.conflist", "the conflist that every host gets")
	flag.Parse()
	if *hosts < 2 || *hosts > 50 {
		fmt.Fprintf(os.Stderr, "demo: hosts %d: want 2 to 50\n", *hosts)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	began := time.Now()
	bad, err := demo(ctx, *hosts, *file)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "\ndemo: interrupted; everything is cleaned up")
		return 130
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	case bad > 0:
		fmt.Fprintf(os.Stderr, "demo: %d pings unanswered\n", bad)
		return 1
	}
	fmt.Printf("\nAll answered, and cleaned up, in %.1f s.\n", time.Since(began).Seconds())
	return 0
}
