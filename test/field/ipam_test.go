package field

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestPrefixWiderThanTheSubnet: an address that IPAM gives with a prefix over
// the peers' subnets gets this host's prefix length where the segment ends with
// the host, else the container would look for peers' containers on its own
// segment (cni#256, and two how-tos).
func TestPrefixWiderThanTheSubnet(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	wide := func(i int) cnitest.Conf {
		return cnitest.Conf{"type": "host-local", "subnet": "192.168.0.0/16", "gateway": fmt.Sprintf("192.168.%d.1", i+1),
			"rangeStart": fmt.Sprintf("192.168.%d.10", i+1), "rangeEnd": fmt.Sprintf("192.168.%d.99", i+1)}
	}
	static := func(i int) cnitest.Conf {
		return cnitest.Conf{"type": "static", "addresses": []cnitest.Conf{{"address": fmt.Sprintf("192.168.%d.77/8", i+1)}, {"address": fmt.Sprintf("fd92:%d::77/16", i+1)}}}
	}
	long := func(i int) cnitest.Conf {
		return cnitest.Conf{"type": "static", "addresses": []cnitest.Conf{{"address": fmt.Sprintf("192.168.%d.200/32", i+1)}, {"address": fmt.Sprintf("fd92:%d::200/128", i+1)}}}
	}
	for _, tt := range []struct {
		segment string
		ipam    func(i int) cnitest.Conf
		want    []int
	}{
		{"host", wide, []int{24}}, {"host", static, []int{24, 64}}, {"host", long, []int{24, 64}},
		{"container", static, []int{32, 128}},
		{"mesh", wide, []int{16}}, {"mesh", long, []int{24, 64}},
	} {
		t.Run(tt.segment+fmt.Sprint(tt.want), func(t *testing.T) {
			var cs []*cnitest.Container
			for i, h := range l.Hosts {
				cnitest.Network{OVSGRE: cnitest.Conf{"segment": tt.segment, "ipam": tt.ipam(i)}}.Install(t, l)
				c := cnitest.Add(t, h, "ovsnet", fmt.Sprintf("c%d", i+1))
				cs = append(cs, c)
				for j, ip := range c.Result.IPs {
					ones, _ := ip.Address.Mask.Size()
					a, _ := netip.AddrFromSlice(ip.Address.IP)
					if ones != tt.want[j] {
						t.Errorf("want a prefix length of %d, the result has %s", tt.want[j], ip.Address.String())
					}
					has(t, "in the container", c.Shell(t, "ip -o address show dev eth0"), fmt.Sprintf(" %s/%d ", a.Unmap(), tt.want[j]))
				}
				if err := c.Call("check"); err != nil {
					t.Errorf("CHECK: %v", err)
				}
			}
			cnitest.AllReach(t, cs)
			cnitest.DelAll(t, cs)
		})
	}
}

// TestAddressOfAnotherHost: an address that no peer would look for here is
// refused with what this host has (cni#256).
func TestAddressOfAnotherHost(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	c := h.NewNetns(t, "c1")
	routers(t, l)
	before := cnitest.MustLook(t, h)
	conf := cnitest.PluginConf(t, cnitest.Network{}.Conflist(l), "ovs-gre", nil)
	for _, segment := range []string{"host", "container", "mesh"} {
		for _, tt := range []struct{ address, says string }{
			{"192.168.2.10/16", "which is in 192.168.2.0/24 of host2 (172.16.32.101), not in this host's subnets [192.168.1.0/24 fd92:1::/64]"},
			{"10.1.1.1/8", "which is in none of this host's subnets [192.168.1.0/24 fd92:1::/64]"},
			{"192.168.1.1/24", "the gateway's own address"},
		} {
			ipam := cnitest.Conf{"type": "static", "addresses": []cnitest.Conf{{"address": tt.address}}}
			_, err := cnitest.Call(c, "ovs-gre", "ADD", with(t, conf, cnitest.Conf{"segment": segment, "ipam": ipam}))
			cnitest.WantError(t, err, invalid, "ipam gave "+strings.Split(tt.address, "/")[0], tt.says)
		}
	}
	settled(t, before, h)
}

// TestWhichRangeIsFull: with two subnets of a family in nodes a container gets an
// address of each, and the error says which one has none left.
func TestWhichRangeIsFull(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	n := cnitest.Network{Subnets: func(int) []string { return []string{"192.168.1.0/24", "192.168.3.0/30"} }}
	conf := cnitest.PluginConf(t, n.Conflist(l), "ovs-gre", nil)
	c1 := attached(t, h, "c1", conf)
	if len(c1.Result.IPs) != 2 {
		t.Errorf("want an address of each subnet: %v", c1.Result.IPs)
	}
	before := cnitest.MustLook(t, h)
	c2 := h.NewNetns(t, "c2")
	_, err := cnitest.Call(c2, "ovs-gre", "ADD", conf)
	cnitest.WantError(t, err, tryAgain, "range 192.168.3.1-192.168.3.2", "no address is left in it", "one of each of the 2 ranges")
	_, err = cnitest.Plugin(h, "ovs-gre", "STATUS", conf)
	cnitest.WantError(t, err, 50, "range 192.168.3.1-192.168.3.2", "no address is left in it")
	c2.Delete(t)
	settled(t, before, h)

	// As more room, the two are one range set.
	del(t, c1, conf)
	h.Shell(t, "rm -f /var/lib/cni/networks/ovsnet/last_reserved_ip*") // which host-local goes on from
	conf = with(t, conf, cnitest.Conf{"ipam": cnitest.Conf{"type": "host-local", "ranges": [][]cnitest.Conf{{{"subnet": "192.168.3.0/30"}, {"subnet": "192.168.1.0/24"}}}}})
	var got []string
	for _, name := range []string{"c3", "c4"} {
		for _, ip := range attached(t, h, name, conf).Result.IPs {
			got = append(got, ip.Address.String())
		}
	}
	slices.Sort(got)
	if want := []string{"192.168.1.2/24", "192.168.3.2/30"}; !slices.Equal(got, want) {
		t.Errorf("of one range set: %v, want %v", got, want)
	}
}

// pool makes an IPAM plugin of that name beside the others on the first host. It
// returns ovs-gre's configuration with it, and the environment that finds it.
func pool(t *testing.T, l *testnet.Lab) (conf, path string) {
	t.Helper()
	l.Hosts[0].Shell(t, "mkdir -p /run/more && cp /opt/cni/bin/host-local /run/more/pool")
	n := cnitest.Network{OVSGRE: cnitest.Conf{"ipam": cnitest.Conf{"type": "pool", "subnet": "192.168.1.0/24"}}}
	return cnitest.PluginConf(t, n.Conflist(l), "ovs-gre", nil), "CNI_PATH=/opt/cni/bin:/run/more"
}

// TestIPAMPluginIsGone: calls whose IPAM plugin somebody has removed say so once,
// and DEL and GC do the rest.
func TestIPAMPluginIsGone(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	conf, path := pool(t, l)
	routers(t, l)
	before := cnitest.MustLook(t, h)
	c := attached(t, h, "c1", conf, path)
	h.Shell(t, "mv /run/more/pool /run/pool")
	c2 := h.NewNetns(t, "c2")
	for _, verb := range []string{"ADD", "DEL", "GC"} {
		of := c.Netns
		if verb == "ADD" {
			of = c2
		}
		_, err := cnitest.Call(of, "ovs-gre", verb, with(t, conf, cnitest.Conf{"cni.dev/valid-attachments": []string{}}), path)
		cnitest.WantError(t, err, tryAgain, `ipam.type "pool"`, "/run/more")
		if err != nil && strings.Count(err.Error(), "no such plugin") != 1 {
			t.Errorf("%s: told more than once: %v", verb, err)
		}
	}
	c2.Delete(t)
	hasNot(t, "after DEL", h.Shell(t, "ip -o link; ovs-vsctl show"), " og")
	h.Shell(t, "mv /run/pool /run/more/pool")
	del(t, c, conf, path)
	c.Delete(t)
	settled(t, before, h)
}

// TestGCNamesAllThatStays: an IPAM plugin that takes an absent list for an empty
// one gets a list whenever it is called (containernetworking/plugins 1.10).
func TestGCNamesAllThatStays(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	conf, path := pool(t, l)
	c1, c2 := attached(t, h, "c1", conf, path), attached(t, h, "c2", conf, path)
	gc := func(more cnitest.Conf) {
		t.Helper()
		if _, err := cnitest.Plugin(h, "ovs-gre", "GC", with(t, conf, more), path); err != nil {
			t.Errorf("GC with %v: %v", more, err)
		}
	}
	held := addresses(t, h, "ovsnet")
	gc(nil)
	if now := addresses(t, h, "ovsnet"); now != held || len(held) == 0 {
		t.Errorf("GC without a list: %q, before %q", now, held)
	}
	// c2's lease is held as by an ADD that is at work: GC lets all of it be.
	busy := h.Command(t.Context(), "flock", "-o", "/run/ovs-gre/ovsnet/leases/"+portOf(c2), "sleep", "600")
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = testnet.Signal(busy, syscall.SIGKILL); _ = busy.Wait() }()
	waitFor(t, func() bool {
		return output(h, "flock -n /run/ovs-gre/ovsnet/leases/%s true || echo taken", portOf(c2)) != ""
	})
	gc(cnitest.Conf{"cni.dev/attachments": []string{}, "cni.dev/valid-attachments": nil})
	if now := addresses(t, h, "ovsnet"); !strings.Contains(now, "c2") || strings.Contains(now, "c1") {
		t.Errorf("GC of all but the one that is being attached: %q", now)
	}
	ping(t, h, c2)
	_ = c1
}

// TestOddIPAM: what an IPAM plugin gives that no container can have is refused, one that
// does not end is ended with all that it has started, and nothing stays.
func TestOddIPAM(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	c := h.NewNetns(t, "c1")
	routers(t, l)
	before := cnitest.MustLook(t, h)
	const dir = "/etc/cni/odd"
	conf := with(t, cnitest.PluginConf(t, cnitest.Network{}.Conflist(l), "ovs-gre", nil), cnitest.Conf{"ipam": cnitest.Conf{"type": "odd"}, "timeoutSeconds": 2})
	address := func(a string) string { return `echo '{"cniVersion":"1.1.0","ips":[{"address":"` + a + `"}]}'` }
	route := func(keys string) string {
		return `echo '{"cniVersion":"1.1.0","ips":[{"address":"192.168.1.50/24"}],"routes":[{"dst":"10.9.0.0/16",` + keys + `}]}'`
	}
	for _, tt := range []struct {
		does string
		code uint // 0: no error
		says string
	}{
		{address("192.168.1.255/24"), invalid, "ipam gave 192.168.1.255, which stands for 192.168.1.0/24 itself or for all in it"},
		{address("192.168.1.0/16"), invalid, "ipam gave 192.168.1.0, which stands for"},
		{`echo '{"cniVersion":"1.1.0","ips":[{"address":"192.168.1.50/24","gateway":"192.168.1.254"}]}'`, invalid, "ipam: gateway 192.168.1.254: this host's"},
		{route(`"table":-1`), invalid, "ipam gave a route to 10.9.0.0/16 with table -1"},
		{route(`"table":255`), invalid, "table 255: it is the kernel's own"},
		{route(`"mtu":-1`), invalid, "mtu -1: want 0 to 65535"},
		{route(`"advmss":70000`), invalid, "advmss 70000: want 0 to 65535"},
		{route(`"priority":-1`), invalid, "priority -1"},
		{route(`"scope":999`), invalid, "scope 999"},
		{route(`"table":100,"mtu":1300,"priority":7`), 0, ""},
		{"sleep 60", tryAgain, "IPAM plugin odd: ADD: not ready: it gave no answer in time"}, // a child of the shell
		{"exec yes", 5, "IPAM plugin odd: ADD: it printed more than 4 MB"},
	} {
		h.WriteFile(t, dir+"/odd", "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND != ADD ] || { "+tt.does+"\n}\n")
		h.Shell(t, "chmod 755 "+dir+"/odd")
		begin := time.Now()
		_, err := cnitest.Call(c, "ovs-gre", "ADD", conf, "CNI_PATH="+dir)
		if tt.code == 0 && err != nil {
			t.Errorf("%s: %v", tt.does, err)
		}
		if tt.code != 0 {
			cnitest.WantError(t, err, tt.code, tt.says)
		}
		if took := time.Since(begin); took > longest {
			t.Errorf("%s: ADD has taken %v", tt.does, took)
		}
		if _, err := cnitest.Call(c, "ovs-gre", "DEL", conf, "CNI_PATH="+dir); err != nil {
			t.Errorf("%s: DEL: %v", tt.does, err)
		}
	}
	settled(t, before, h)

	// A resolv.conf that never ends, while host-local's lock is held.
	h.Shell(t, "mkfifo "+dir+"/pipe")
	for _, path := range []string{dir + "/pipe", "/dev/zero", dir} {
		conf := with(t, conf, cnitest.Conf{"ipam": cnitest.Conf{"type": "host-local", "resolvConf": path}})
		_, err := cnitest.Call(c, "ovs-gre", "ADD", conf)
		cnitest.WantError(t, err, invalid, "ipam.resolvConf: "+path+" is no regular file")
	}
	settled(t, before, h)
}
