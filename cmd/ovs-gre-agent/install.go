package main

import (
	"context"
	"flag"
	"log/slog"

	"ovs-gre-cni/pkg/agent"
)

func install(_ context.Context, log *slog.Logger, args []string) error {
	f := flag.NewFlagSet("install", flag.ContinueOnError)
	from := f.String("from", "/plugins", "`directory` of the plugins to copy")
	to := f.String("to", "/host/opt/cni/bin", "`directory` where the runtime looks for them")
	if err := parse(f, args); err != nil {
		return err
	}
	installed, err := agent.Install(*from, *to)
	for _, name := range installed {
		log.Info("installed", "plugin", name, "directory", *to)
	}
	if len(installed) == 0 && err == nil {
		log.Info("all plugins are there already", "directory", *to)
	}
	return err
}

func uninstall(ctx context.Context, log *slog.Logger, args []string) error {
	var p place
	f := flag.NewFlagSet("uninstall", flag.ContinueOnError)
	p.flags(f)
	if err := parse(f, args); err != nil {
		return err
	}
	if err := agent.Uninstall(ctx, p.use(), p.store, log); err != nil {
		return err
	}
	log.Info("the plugins stay, so that containers that are there can still be detached")
	return nil
}
