package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"sync"
	"time"

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
	plugins := f.String("plugins", "",
		"the runtime's `directory` of plugins, to remove ours from; \"\" leaves them, so that containers can still be detached")
	wait := f.Bool("wait", false, "try until all is gone, then wait for SIGTERM: for a DaemonSet")
	listen := f.String("listen", "", "`address` of /healthz and /readyz while waiting; \"\" is off")
	if err := parse(f, args); err != nil {
		return err
	}
	conflist, err := p.use()
	if err != nil {
		return err
	}
	remove := func() error {
		if err := agent.Uninstall(ctx, conflist, p.store, log); err != nil {
			return err
		}
		if *plugins == "" {
			log.Info("the plugins stay, so that containers can still be detached")
			return nil
		}
		return agent.RemovePlugins(*plugins, log)
	}
	if !*wait {
		return remove()
	}
	state := &removal{err: errors.New("not everything is gone yet")}
	if err := serve(ctx, "--listen", *listen, agent.Probes(func() error { return nil }, state.get), log); err != nil {
		return err
	}
	for state.set(remove()) != nil && ctx.Err() == nil {
		log.Error("uninstall failed, trying again", "error", state.get())
		select {
		case <-ctx.Done():
		case <-time.After(retryRemoval):
		}
	}
	<-ctx.Done()
	return state.get()
}

// retryRemoval is the time between attempts to uninstall.
const retryRemoval = 2 * time.Second

// A removal has the error of the last attempt to uninstall.
type removal struct {
	mu  sync.Mutex
	err error
}

func (r *removal) get() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *removal) set(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
	return err
}
