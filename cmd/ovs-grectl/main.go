// Command ovs-grectl makes, shows, checks and removes the host state of ovs-gre's networks,
// and follows packets through it. It is no daemon.
package main

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// release is set by the linker.
var release = "devel"

// The exit status.
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
		// gc looks for IPAM plugins there.
		_ = os.Setenv("CNI_PATH", "/opt/cni/bin")
	}
	return newCall(os.Stdout, os.Stderr).run(ctx, os.Args[1:])
}
