package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"ovs-gre-cni/pkg/cni"
	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/routes"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// bound is how long one call may take; the kernel answers at once, the
// network's lock may have to be waited for.
const bound = 10 * time.Second

// A request is what a runtime asks of route-sync.
type request struct {
	config *config.Routes
	prev   types.Result // as it came, to be passed on; nil if there is none
	lease  rundir.Lease
	// bridge is the first interface of the previous result.
	bridge string
}

// verb reads the request, bounds the verb and gives its error a CNI code.
func verb(f func(context.Context, request, error) error) func(*skel.CmdArgs) error {
	return func(args *skel.CmdArgs) error {
		ctx, cancel := context.WithTimeout(context.Background(), bound)
		defer cancel()
		r, invalid := read(args)
		return cni.From(f(ctx, r, invalid))
	}
}

func read(args *skel.CmdArgs) (request, error) {
	c, err := config.ParseRoutes(args.StdinData)
	inUse = c.CNIVersion
	a := config.Attachment{ContainerID: args.ContainerID, IfName: args.IfName}
	r := request{config: c, lease: rundir.Lease{Name: config.PortName(c.Name, a.ContainerID, a.IfName), Attachment: a}}
	if err != nil || c.PrevResult == nil {
		return r, err
	}
	var prev *current.Result
	if r.prev, prev, err = cni.ReadResult(c.CNIVersion, c.PrevResult); err != nil {
		return r, fmt.Errorf("%w: prevResult: %w", config.ErrInvalid, err)
	}
	if len(prev.Interfaces) > 0 && prev.Interfaces[0].Sandbox == "" {
		r.bridge = prev.Interfaces[0].Name
	}
	return r, nil
}

// chained insists on a previous result.
func (r request) chained(invalid error) error {
	if invalid == nil && r.prev == nil {
		return fmt.Errorf("%w: prevResult: missing: route-sync comes after the plugin that makes the interface", config.ErrInvalid)
	}
	return invalid
}

func add(ctx context.Context, r request, invalid error) error {
	if err := r.chained(invalid); err != nil {
		return err
	}
	if err := routes.Attach(ctx, r.config, r.bridge, r.lease); err != nil {
		return err
	}
	return types.PrintResult(r.prev, r.config.CNIVersion)
}

// del works with whatever is left of a configuration.
func del(ctx context.Context, r request, invalid error) error {
	if errors.Is(invalid, config.ErrDecode) {
		return invalid
	}
	return routes.Detach(ctx, r.config, r.bridge, r.lease.Name)
}

func check(ctx context.Context, r request, invalid error) error {
	if err := r.chained(invalid); err != nil {
		return err
	}
	return drift(ctx, r.config, r.bridge)
}

func drift(ctx context.Context, c *config.Routes, bridge string) error {
	changes, err := routes.Check(ctx, c, bridge)
	if errors.Is(err, state.ErrUnreachable) && !errors.Is(err, config.ErrInvalid) {
		return state.DriftOfTexts(strings.Split(err.Error(), "\n")...) // there was a way when ADD ran
	}
	if err != nil {
		return err
	}
	if d := state.DriftOf(changes); d != nil {
		return d
	}
	return nil
}

func gc(ctx context.Context, r request, invalid error) error {
	if invalid != nil {
		return invalid
	}
	if r.config.Valid == nil {
		fmt.Fprintln(os.Stderr, "route-sync: GC without cni.dev/valid-attachments: nothing removed")
		return nil
	}
	return routes.GC(ctx, r.config, *r.config.Valid)
}

func status(args *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	r, err := read(args)
	if err == nil {
		err = routes.Status(ctx, r.config)
	}
	return cni.FromStatus(err)
}
