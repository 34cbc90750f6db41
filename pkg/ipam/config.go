package ipam

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ovs-gre-cni/pkg/cni"
	"ovs-gre-cni/pkg/config"
)

// hostLocalConfig is the configuration that host-local's own code reads: ours
// with only what it looks at, this host's subnets where no range is given, and
// of the addresses asked for, in each family, only those of the first source
// that has any (runtimeConfig, args.cni, CNI_ARGS). nerdctl asks for an IPv4
// address by CNI_ARGS and for an IPv6 one by runtimeConfig.
func hostLocalConfig(r Request, subnets []netip.Prefix) (conf []byte, args string, err error) {
	var in struct {
		IPAM          map[string]json.RawMessage `json:"ipam"`
		RuntimeConfig struct {
			IPs      []string        `json:"ips,omitempty"`
			IPRanges json.RawMessage `json:"ipRanges,omitempty"`
		} `json:"runtimeConfig"`
		Args struct {
			CNI struct {
				IPs []string `json:"ips,omitempty"`
			} `json:"cni"`
		} `json:"args"`
	}
	if err := json.Unmarshal(r.Config.Raw, &in); err != nil {
		return nil, "", fmt.Errorf("%w: ipam: %w", config.ErrInvalid, err)
	}
	ipRanges := listed(in.RuntimeConfig.IPRanges)
	if !r.Config.IPAM.Ranged && !ipRanges {
		in.IPAM["ranges"] = ranges(subnets)
	}
	env, err := cni.ParseArgs(r.Args)
	if err != nil {
		return nil, "", err
	}
	asked := families(in.RuntimeConfig.IPs)
	in.Args.CNI.IPs = slices.DeleteFunc(in.Args.CNI.IPs, func(ip string) bool { return asked[family(ip)] })
	if asked[family(string(env.IP))] || families(in.Args.CNI.IPs)[family(string(env.IP))] {
		env.IP = ""
	}
	if env.IP != "" {
		args = "IP=" + string(env.IP)
	}
	conf, err = json.Marshal(map[string]any{
		"cniVersion": r.Config.CNIVersion, "name": r.Config.Name,
		"ipam": in.IPAM, "runtimeConfig": in.RuntimeConfig, "args": in.Args,
	})
	return conf, args, err
}

// families are those of a list of addresses.
func families(ips []string) map[int]bool {
	set := map[int]bool{}
	for _, ip := range ips {
		set[family(ip)] = true
	}
	return set
}

// family is 4 or 6, with or without a prefix length behind the address; 0 is
// for what is no address, which host-local shall see and refuse.
func family(ip string) int {
	addr, _, _ := strings.Cut(ip, "/")
	a, err := netip.ParseAddr(addr)
	switch {
	case err != nil:
		return 0
	case a.Unmap().Is4():
		return 4
	}
	return 6
}

// listed reports whether raw is a list that is not empty.
func listed(raw json.RawMessage) bool {
	var list []json.RawMessage
	return json.Unmarshal(raw, &list) == nil && len(list) > 0
}

// ranges is one range a subnet, the gateway kept out of it.
func ranges(subnets []netip.Prefix) json.RawMessage {
	type rng struct {
		Subnet  string `json:"subnet"`
		Gateway string `json:"gateway"`
	}
	sets := make([][]rng, len(subnets))
	for i, s := range subnets {
		sets[i] = []rng{{Subnet: s.String(), Gateway: config.Gateway(s).String()}}
	}
	raw, _ := json.Marshal(sets)
	return raw
}
