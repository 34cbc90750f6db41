package config_test

import (
	"fmt"
	"net/netip"
	"testing"

	"ovs-gre-cni/pkg/config"
)

func TestRequestedMAC(t *testing.T) {
	for keys, want := range map[string]string{
		``: "",
		`,"runtimeConfig":{"mac":"02:00:00:00:00:01"}`:                                               "02:00:00:00:00:01",
		`,"runtimeConfig":{"mac":"02-AB-00-00-00-01"}`:                                               "02:ab:00:00:00:01",
		`,"args":{"cni":{"mac":"02:00:00:00:00:02"}}`:                                                "02:00:00:00:00:02",
		`,"runtimeConfig":{"mac":"02:00:00:00:00:01"},"args":{"cni":{"mac":"02:00:00:00:00:02"}}`:    "02:00:00:00:00:01",
		`,"runtimeConfig":{"mac":""},"args":{"cni":{"mac":"02:00:00:00:00:02"}}`:                     "02:00:00:00:00:02",
		`,"runtimeConfig":{"ips":["x"]},"args":{"cni":{}}`:                                           "",
		`,"runtimeConfig":null,"args":null`:                                                          "",
		`,"runtimeConfig":{"mac":"02:00:00:00:00:01"},"args":{"cni":{"mac":"nonsense, overridden"}}`: "02:00:00:00:00:01",
	} {
		c, err := config.Parse(ovsgre(keys + `,"nodes":` + two))
		if err != nil || c.MAC != want {
			t.Errorf("%s: %q, %v, want %q", keys, c.MAC, err, want)
		}
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	add := func(name string) {
		t.Helper()
		if len(name) > 15 {
			t.Fatalf("%s: %d bytes", name, len(name))
		}
		if seen[name] {
			t.Fatalf("%s: twice", name)
		}
		seen[name] = true
	}
	for i := range 100000 {
		add(config.PortName("ovsnet", fmt.Sprintf("%064x", i), "eth0"))
		add(config.TunnelName("ovsnet", netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})))
	}
	// No two ways to cut one text.
	for _, p := range [][3]string{{"a", "bc", "d"}, {"ab", "c", "d"}, {"a", "b", "cd"}, {"", "abc", "d"}, {"abcd", "", ""}, {"a", "1:b,", "c"}, {"a,1:1:b", "", "c"}, {"A", "bc", "d"}} {
		add(config.PortName(p[0], p[1], p[2]))
	}
	add(config.TunnelName("other", netip.MustParseAddr("10.0.0.1")))
	add(config.TunnelName("ovsnet", netip.MustParseAddr("fd00::1")))
	add(config.TransitLink("thirteenchars"))
	// Names must not change between versions: DEL finds what an older ADD made.
	for got, want := range map[string]string{
		config.PortName("ovsnet", "c1", "eth0"):                                       "og371ed6746887f",
		config.TunnelName("ovsnet", netip.MustParseAddr("172.16.32.101")):             "otb6096090cc7a4",
		config.TunnelName("ovsnet", netip.MustParseAddr("fd00:32::102")):              "ot1b831b0b0488c",
		config.TransitLink("obr0"):                                                    "obr0-t",
		config.FirewallTable("ovsnet"):                                                "ovs-gre-ovsnet",
		config.MAC(netip.MustParseAddr("192.168.1.1")):                                "0a:58:c0:a8:01:01",
		config.MAC(netip.MustParseAddr("0.0.0.0")):                                    "0a:58:00:00:00:00",
		config.MAC(netip.MustParseAddr("255.255.255.255")):                            "0a:58:ff:ff:ff:ff",
		config.MAC(netip.MustParseAddr("fd00:32::101")):                               "0a:58:77:b2:44:1b",
		config.LinkLocal("34:56:78:9a:bc:de").String():                                "fe80::3656:78ff:fe9a:bcde", // RFC 4291, appendix A, has the rule
		config.LinkLocal("0a:58:c0:a8:01:01").String():                                "fe80::858:c0ff:fea8:101",
		config.LinkLocal("00:00:00:00:00:00").String():                                "fe80::200:ff:fe00:0",
		config.LinkLocal("x").String():                                                "invalid IP",
		config.LinkLocal("02:00:00:00:00:00:00:01").String():                          "invalid IP",
		config.Gateway(netip.MustParsePrefix("192.168.1.0/24")).String():              "192.168.1.1",
		config.Gateway(netip.MustParsePrefix("fd00:1::/64")).String():                 "fd00:1::1",
		config.Gateway(netip.PrefixFrom(netip.MustParseAddr("10.9.8.7"), 8)).String(): "10.0.0.1",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestNormalizeMAC(t *testing.T) {
	for in, want := range map[string]string{
		"0A:58:C0:A8:01:01": "0a:58:c0:a8:01:01", "0a-58-c0-a8-01-01": "0a:58:c0:a8:01:01", "0a58.c0a8.0101": "0a:58:c0:a8:01:01",
		"": "", "x": "", "01:00:00:00:00:00": "", "ff:ff:ff:ff:ff:ff": "", "00:00:00:00:00:00": "", "02:00:00:00:00:00:00:01": "",
	} {
		got, err := config.NormalizeMAC(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
}
