// Command ovs-grectl makes, shows and removes the host state of ovs-gre's
// networks, and says what is wrong on the way of a packet. It is no daemon.
package main

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// release is set by the linker.
var release = "devel"

// What a call ends with.
const (
	exitFine   = 0 // all is as it should be
	exitDrift  = 1 // drift, failed checks, a refusal
	exitUnable = 2 // could not look, could not do; wrong usage
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if os.Getenv("CNI_PATH") == "" {
		// An IPAM plugin that gc delegates to is looked for there.
		_ = os.Setenv("CNI_PATH", "/opt/cni/bin")
	}
	return newCall(os.Stdout, os.Stderr).run(ctx, os.Args[1:])
}
