package attach

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"ovs-gre-cni/pkg/cni"
	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/ipam"
	"ovs-gre-cni/pkg/rundir"
)

// A Request has the parameters of a call of ovs-gre by a runtime.
type Request struct {
	Config *config.Network
	// Attachment is the container's id and the name of its interface.
	config.Attachment
	// Netns is the path of the container's network namespace; "" is none, as DEL may
	// have.
	Netns string
	// Args is CNI_ARGS.
	Args string
	// HostNetns: Netns may be the host's namespace (CNI_NETNS_OVERRIDE).
	HostNetns bool
}

// port is the name of the host's end of the veth pair, and of the OVS port.
func (r Request) port() string {
	return config.PortName(r.Config.Name, r.ContainerID, r.IfName)
}

// alias is the ifalias of the host's end.
func (r Request) alias() string { return config.Alias(r.Config.Name, r.ContainerID, r.IfName) }

func (r Request) dir() rundir.Dir { return rundir.NetworkDir(r.Config.Name) }

// ipam is the network's IPAM plugin for the attachment, nil if the network has none; see
// ipam.New.
func (r Request) ipam(subnets []netip.Prefix) ipam.Plugin {
	return ipam.New(ipam.Request{Config: r.Config, Attachment: r.Attachment, Netns: r.Netns, Args: r.Args}, subnets)
}

// mac is the MAC address that the runtime asks for: by runtimeConfig, args.cni (both are
// in Config.MAC) or CNI_ARGS, in this order; "" is none.
func (r Request) mac() (string, error) {
	if r.Config.MAC != "" {
		return r.Config.MAC, nil
	}
	args, err := cni.ParseArgs(r.Args)
	if err != nil {
		return "", err
	}
	if args.MAC == "" {
		return "", nil
	}
	mac, err := config.NormalizeMAC(string(args.MAC))
	if err != nil {
		return "", fmt.Errorf("%w: CNI_ARGS MAC=%q: %w", fault.ErrEnvironment, string(args.MAC), err)
	}
	return mac, nil
}

// checkNames checks CNI_CONTAINERID and CNI_IFNAME for what package skel of CNI lets
// through and the kernel does not. The error wraps fault.ErrEnvironment.
func (r Request) checkNames() error {
	if over := len(r.alias()) - config.MaxAlias; over > 0 {
		return fmt.Errorf("%w: CNI_CONTAINERID: %d characters, at most %d fit beside the network's name in the alias of a link",
			fault.ErrEnvironment, len(r.ContainerID), len(r.ContainerID)-over)
	}
	// The kernel writes a number in the place of %d; the two have a meaning in /proc/sys/net.
	if strings.Contains(r.IfName, "%") || r.IfName == "all" || r.IfName == "default" {
		return fmt.Errorf("%w: CNI_IFNAME %q: the kernel has no links of this name", fault.ErrEnvironment, r.IfName)
	}
	return nil
}

// undo are the functions that undo the steps so far; the last step is undone first.
type undo struct {
	steps []func(context.Context) error
}

func (u *undo) add(step func(context.Context) error) { u.steps = append(u.steps, step) }

// bounded returns a step with a deadline of its own.
func (r Request) bounded(step func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, r.bound(restBound))
		defer cancel()
		return step(ctx)
	}
}

// back undoes the steps, with a deadline of its own: the failed step may have used up the
// caller's.
func (u *undo) back(ctx context.Context, bound time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bound)
	defer cancel()
	var errs []error
	for i := len(u.steps) - 1; i >= 0; i-- {
		errs = append(errs, u.steps[i](ctx))
	}
	return errors.Join(errs...)
}
