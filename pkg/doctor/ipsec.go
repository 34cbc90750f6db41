package doctor

import (
	"context"
	"os"
	"strings"

	"ovs-gre-cni/pkg/ovs"
)

// ipsec looks for the daemons that encrypt tunnels with an option of IPsec: OVS's own,
// which configures an IKE daemon, and that one.
func ipsec(_ context.Context, h *host) []Finding {
	var list []Finding
	for _, n := range h.nets {
		if n.OVS == nil || n.OVS.Tunnel.IPsec() == "" {
			continue
		}
		option := "tunnel.options." + n.OVS.Tunnel.IPsec()
		const restart = "systemctl restart openvswitch-ipsec"
		switch err := ovs.DaemonAlive(n.OVS.OVSDB, "ovs-monitor-ipsec"); {
		case err != nil:
			list = append(list, fail(n.Name(), "apt-get install -y openvswitch-ipsec; "+restart,
				"%s: %v: nothing encrypts the tunnels, and the guard drops what goes between the hosts", option, err))
		case !ikeListens():
			list = append(list, fail(n.Name(), restart,
				"%s: no IKE daemon has UDP port 500: nothing encrypts the tunnels, and the guard drops what goes between the hosts", option))
		default:
			list = append(list, ok(n.Name(), "OVS's IPsec daemon and an IKE daemon run"))
		}
	}
	return list
}

// ikeListens reports whether a program has IKE's port, UDP 500 (RFC 7296, 2).
func ikeListens() bool {
	for _, file := range []string{"/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && strings.HasSuffix(f[1], ":01F4") { // local_address (proc_pid_net(5))
				return true
			}
		}
	}
	return false
}
