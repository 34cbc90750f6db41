package ovs

import (
	"fmt"
	"reflect"
	"testing"
)

// What ovs-appctl dpctl/show of version 3.1 prints.
const twoDatapaths = `netdev@ovs-netdev:
  lookups: hit:18 missed:30 lost:0
  flows: 2
  port 0: ovs-netdev (tap)
system@ovs-system:
  lookups: hit:1899 missed:700 lost:41
  flows: 12
  masks: hit:3799 total:3 hit/pkt:1.46
  port 0: ovs-system (internal)
`

func TestLookups(t *testing.T) {
	want := []Lookup{{"netdev@ovs-netdev", 18, 30, 0}, {"system@ovs-system", 1899, 700, 41}}
	if have := lookups(twoDatapaths); !reflect.DeepEqual(have, want) {
		t.Errorf("%+v", have)
	}
}

// What ofproto/trace of version 3.1 ends with, on both datapaths.
func TestFate(t *testing.T) {
	ports := datapathPorts(`netdev@ovs-netdev: hit:18 missed:30
  obr0:
    obr0 65534/3: (tap)
    og1 1/6: (system)
  obr0-t:
    obr0-t 65534/5: (tap)
    ot1 1/4: (gre: local_ip=172.16.32.100, remote_ip=172.16.32.101)
`)
	if len(ports) != 4 || ports[0] != (datapathPort{"obr0", "obr0", "LOCAL", "3"}) || ports[3] != (datapathPort{"obr0-t", "ot1", "1", "4"}) {
		t.Errorf("%+v", ports)
	}
	for _, c := range []struct{ actions, ports, remotes string }{
		{"3", "[obr0]", "[]"},
		{"5,6", "[obr0-t og1]", "[]"},
		{"drop", "[]", "[]"},
		{"clone(tnl_push(tnl_port(4),header(size=38,type=3,eth(dst=02:00:ac:10:20:65,src=02:00:ac:10:20:64,dl_type=0x0800)," +
			"ipv4(src=172.16.32.100,dst=172.16.32.101,proto=47,tos=0,ttl=64,frag=0x4000),gre((flags=0x0,proto=0x6558))),out_port(2)),3),6", "[og1]", "[172.16.32.101]"},
		{"set(tunnel(tun_id=0x7,src=172.16.32.100,dst=172.16.32.101,ttl=64,tp_dst=6081,flags(df|key))),6", "[og1]", "[172.16.32.101]"},
		{"set(tunnel(ipv6_src=fd00::1,ipv6_dst=fd00::2,ttl=64,flags(df))),6", "[og1]", "[fd00::2]"},
	} {
		f := fateOf("Final flow: unchanged\nDatapath actions: "+c.actions+"\n", ports)
		if have := fmt.Sprint(f.Ports); have != c.ports {
			t.Errorf("%s: ports %s", c.actions, have)
		}
		if have := fmt.Sprint(f.Remotes); have != c.remotes {
			t.Errorf("%s: remotes %s", c.actions, have)
		}
	}
}

// TestFateWhy: where ovs-vswitchd warns of nothing, its last detail tells why.
func TestFateWhy(t *testing.T) {
	const tunnelled = "    output:65000\n     -> output to native tunnel\n"
	for text, want := range map[string]string{
		tunnelled + "     -> neighbor cache miss for 172.16.32.99 on bridge br-phy, sending ARP request\n": "neighbor cache miss for 172.16.32.99 on bridge br-phy, " +
			"sending ARP request",
		tunnelled + "     >> native tunnel routing failed\n     -> more\n": "native tunnel routing failed",
		"    drop\n": "drop",
		"":           "",
	} {
		if f := fateOf(text+"\nDatapath actions: drop\n", nil); f.Why != want {
			t.Errorf("%q: %q, want %q", text, f.Why, want)
		}
	}
}
