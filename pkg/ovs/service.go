package ovs

import (
	"os"
	"path/filepath"
)

// Service is the name of OVS's unit of systemd: Debian has its own.
func Service() string {
	for _, dir := range []string{"/lib/systemd/system", "/usr/lib/systemd/system"} {
		if _, err := os.Stat(filepath.Join(dir, "openvswitch.service")); err == nil {
			return "openvswitch"
		}
	}
	return "openvswitch-switch"
}
