// Package ipam gives addresses to containers: host-local's by its own code in
// this process, any other IPAM plugin's by executing that.
package ipam

import (
	"context"
	"net/netip"

	current "github.com/containernetworking/cni/pkg/types/100"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/rundir"
)

// HostLocal is the type of the IPAM plugin that needs no exec.
const HostLocal = "host-local"

// A Request says for which attachment of which network addresses are.
type Request struct {
	Config *config.Network
	// Attachment is zero where the request is about the network alone.
	config.Attachment
	// Netns is the path of the container's network namespace; "" where DEL has none.
	Netns string
	// Args is CNI_ARGS.
	Args string
}

func (r Request) dir() rundir.Dir { return rundir.NetworkDir(r.Config.Name) }

// A Plugin is an IPAM plugin. Its methods are the commands of CNI.
type Plugin interface {
	Add(ctx context.Context) (*current.Result, error)
	Del(ctx context.Context) error
	// Check looks whether the container still has what Add gave it, addrs. The
	// error wraps fault.ErrDrift where it has not.
	Check(ctx context.Context, addrs []netip.Addr) error
	Status(ctx context.Context) error
	// GC releases what no attachment of keep holds, and no lease stands for.
	GC(ctx context.Context, keep []config.Attachment) error
}

// New returns the network's IPAM plugin, nil if it has none. subnets are this
// host's; they are what host-local gives out where the configuration does not
// say. Del and GC need none.
func New(r Request, subnets []netip.Prefix) Plugin {
	switch r.Config.IPAM.Type {
	case "":
		return nil
	case HostLocal:
		return hostLocal{r, subnets}
	default:
		return delegate{r}
	}
}
