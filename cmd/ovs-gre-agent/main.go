// Command ovs-gre-agent keeps a network's list of hosts up to date, and makes this host's
// state match it. The hosts are the Nodes of a Kubernetes cluster, or those of a file.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// release is set by the linker.
var release = "devel"

const usage = `usage: ovs-gre-agent COMMAND [FLAG...]

  run        keep the nodes, the host state and the conflist until SIGTERM
  install    copy the plugins into the host's CNI directory
  uninstall  remove the conflist, the host state and the nodes file
  version    print the version

ovs-gre-agent COMMAND -h tells the flags.
`

// commands are the functions of the commands; args are their flags.
var commands = map[string]func(ctx context.Context, log *slog.Logger, args []string) error{
	"run": run, "install": install, "uninstall": uninstall, "version": version,
}

func main() { os.Exit(call()) }

func call() int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	name := ""
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	command := commands[name]
	if command == nil {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	err := command(ctx, log, os.Args[2:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2 // package flag has printed it
	case err != nil:
		log.Error(name+" failed", "error", err)
		return 1
	}
	return 0
}

var errUsage = errors.New("usage")

// parse reads flags; other arguments are an error.
func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return errUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(flags.Output(), "%s: unknown argument %q\n", flags.Name(), flags.Arg(0))
		return errUsage
	}
	return nil
}

func version(_ context.Context, _ *slog.Logger, args []string) error {
	if err := parse(flag.NewFlagSet("version", flag.ContinueOnError), args); err != nil {
		return err
	}
	fmt.Println("ovs-gre-agent", release)
	return nil
}
