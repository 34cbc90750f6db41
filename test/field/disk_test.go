package field

import (
	"strings"
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// TestNoRoomForFiles: on a file system that is read-only or full ADD fails and leaves
// nothing, and STATUS says so before.
func TestNoRoomForFiles(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	routers(t, l)
	n := h.NewNetns(t, "c1")
	conf := cnitest.PluginConf(t, cnitest.Network{}.Conflist(l), "ovs-gre", nil)
	routes := cnitest.PluginConf(t, cnitest.Network{}.Conflist(l), "route-sync", nil)
	before := cnitest.MustLook(t, h)
	for _, tt := range []struct{ dir, options, says string }{
		{"/run/ovs-gre", "mode=0700,ro", "read-only file system"},
		{"/run/ovs-gre", "mode=0700,nr_inodes=1", "no space left on device"},
		{"/run/ovs-gre", "mode=0700,size=4k", "no space left on device"},
		{"/run/ovs-gre", "mode=1777", "want a directory of root's that nobody else can write to (mode 0700)"},
		{"/var/lib/cni/networks", "ro", "read-only file system"},
		{"/var/lib/cni/networks", "nr_inodes=1", "no space left on device"},
		{"/var/lib/cni/networks", "size=4k", "no space left on device"},
	} {
		h.Shell(t, "mkdir -p "+tt.dir+"; mount -t tmpfs -o "+tt.options+" tmpfs "+tt.dir)
		if strings.Contains(tt.options, "size") {
			h.Shell(t, "head -c 4096 /dev/zero >"+tt.dir+"/file")
		}
		_, add := cnitest.Call(n, "ovs-gre", "ADD", conf)
		_, status := cnitest.Plugin(h, "ovs-gre", "STATUS", conf)
		said := map[string]error{"ADD": add, "STATUS": status}
		if tt.dir == "/run/ovs-gre" {
			_, said["STATUS of route-sync"] = cnitest.Plugin(h, "route-sync", "STATUS", routes)
		}
		for verb, err := range said {
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s on a tmpfs with %s: %s: %v", tt.dir, tt.options, verb, err)
			}
		}
		_, _ = cnitest.Call(n, "ovs-gre", "DEL", conf) // as a runtime does
		h.Shell(t, "umount "+tt.dir+"; rmdir --ignore-fail-on-non-empty "+tt.dir)
		settled(t, before, h)
	}
	cnitest.Result(t, n, "ovs-gre", conf)
}
