package e2e

import (
	"fmt"
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// TestSegments pings all pairs of three hosts in every segment, by every
// tunnel, over both families of underlay.
func TestSegments(t *testing.T) {
	l := lab(t, 3)
	for _, segment := range []string{"host", "mesh", "container"} {
		for _, tunnel := range []string{"gre", "vxlan", "geneve"} {
			for _, v6 := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/underlay6=%t", segment, tunnel, v6), func(t *testing.T) {
					n := cnitest.Network{V6: v6, OVSGRE: cnitest.Conf{"segment": segment, "tunnel": cnitest.Conf{"type": tunnel}}}
					n.Install(t, l)
					cs := one(t, l, "ovsnet")
					for _, from := range cs {
						for _, to := range cs {
							for _, v6 := range []bool{false, true} {
								ping(t, from, to, v6)
								ping(t, from.Host, to, v6)
							}
						}
						if err := from.Call("check"); err != nil {
							t.Errorf("CHECK on %s: %v", from.Host.Name, err)
						}
					}
					for _, c := range cs {
						if err := c.Call("del"); err != nil {
							t.Errorf("DEL on %s: %v", c.Host.Name, err)
						}
						c.Delete(t)
					}
				})
			}
		}
	}
}
