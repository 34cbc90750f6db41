package attach

import (
	"context"
	"errors"
	"io/fs"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/kernel"
)

// hostEnd finds the host's end of a veth pair by its name port or, if it was renamed, by
// its alias. The error wraps fs.ErrNotExist where there is none.
func hostEnd(ctx context.Context, network, port string) (kernel.Link, error) {
	l, absent := kernel.LinkByName(ctx, port)
	if !errors.Is(absent, fs.ErrNotExist) {
		return l, absent
	}
	links, err := kernel.LinksByAliasPrefix(ctx, config.AliasPrefix(network))
	if err != nil {
		return kernel.Link{}, err
	}
	for _, l := range links {
		if ownLink(network, port, l, false) {
			return l, nil
		}
	}
	return kernel.Link{}, absent
}

// ownLink reports whether a link is the host's end that an ADD has made for port: by its
// alias or, if the ADD was killed before it set that, by held, that there is a lease.
func ownLink(network, port string, l kernel.Link, held bool) bool {
	if l.Kind != "veth" {
		return false
	}
	if l.Alias == "" {
		return held && l.Name == port
	}
	_, name, ours := config.ParseAlias(network, l.Name, l.Alias)
	return ours && name == port
}

// delLink deletes the host's end of port's veth pair, unless the link is not ours.
func delLink(ctx context.Context, network, port string, held bool) error {
	l, err := hostEnd(ctx, network, port)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !ownLink(network, port, l, held) {
		return err
	}
	return kernel.DelLink(ctx, l.Name)
}
