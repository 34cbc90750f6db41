package ovs

import (
	"os"
	"path/filepath"
)

// Service is the name of OVS's systemd unit on this host: openvswitch-switch on
// Debian and its derivatives, else openvswitch.
func Service() string {
	for _, dir := range []string{"/lib/systemd/system", "/usr/lib/systemd/system"} {
		if _, err := os.Stat(filepath.Join(dir, "openvswitch.service")); err == nil {
			return "openvswitch"
		}
	}
	return "openvswitch-switch"
}
