package testnet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// tool is a program that the lab runs, and the Debian package that has it.
type tool struct{ program, pkg string }

var (
	tools = []tool{
		{"nsenter", "util-linux"},
		{"setpriv", "util-linux"},
		{"mount", "mount"},
		{"ip", "iproute2"},
		{"sysctl", "procps"},
		{"ping", "iputils-ping"},
		{"tcpdump", "tcpdump"},
	}
	toolsOVS = []tool{
		{"ovsdb-server", "openvswitch-common"},
		{"ovsdb-tool", "openvswitch-common"},
		{"ovs-appctl", "openvswitch-common"},
		{"ovs-vsctl", "openvswitch-switch"},
		{"ovs-vswitchd", "openvswitch-switch"},
	}
	toolsNetdev = []tool{
		{"nft", "nftables"},
		{"ethtool", "ethtool"},
	}
)

// Requirements says what this machine lacks for a lab with these options, all
// of it at once; nil is nothing.
func Requirements(o Options) error {
	need := tools
	if !o.NoOVS {
		need = append(need[:len(need):len(need)], toolsOVS...)
		if o.Datapath == DatapathNetdev || o.Datapath == "" && datapath() == DatapathNetdev {
			need = append(need, toolsNetdev...)
		}
	}
	var errs []error
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("testnet: needs root, to make namespaces"))
	}
	for _, t := range need {
		if _, err := exec.LookPath(t.program); err != nil {
			errs = append(errs, fmt.Errorf("testnet: no %s on this machine: apt-get install %s", t.program, t.pkg))
		}
	}
	return errors.Join(errs...)
}

// datapath is the better of the datapaths that this machine has.
func datapath() string {
	const module = "/sys/module/openvswitch"
	if _, err := os.Stat(module); err != nil {
		// Its failure shows below. Only root may ask, and only root is served.
		_ = exec.Command("modprobe", "--quiet", "openvswitch").Run()
	}
	if _, err := os.Stat(module); err != nil {
		return DatapathNetdev
	}
	return DatapathSystem
}
