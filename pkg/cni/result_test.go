package cni_test

import (
	"io"
	"slices"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/cni"
)

// TestReadResult reads what IPAM plugins and previous plugins print.
func TestReadResult(t *testing.T) {
	for _, tt := range []struct{ version, raw, err string }{
		{version: "1.0.0", raw: `{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24"}]}`},
		{version: "", raw: `{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.0.0.2/24"}]}`},
		{version: "0.3.1", raw: `{"cniVersion":"0.3.1"}`},
		{version: "1.0.0", raw: ``, err: "unexpected end"},
		{version: "1.0.0", raw: `[]`, err: "it is a JSON array: want the result of a plugin, an object"},
		{version: "1.0.0", raw: `{"ips":"x"}`, err: "ips: it cannot be a JSON string"},
		{version: "1.0.0", raw: `{"cniVersion":"0.4.0"}`, err: `cniVersion "0.4.0": a result of version "1.0.0" is wanted`},
		{version: "1.0.0", raw: `{"ips":[null]}`, err: "ips[0]: null"},
		{version: "1.0.0", raw: `{"routes":[{"dst":"0.0.0.0/0"},null]}`, err: "routes[1]: null"},
		{version: "1.0.0", raw: `{"interfaces":[null]}`, err: "interfaces[0]: null"},
		{version: "9.0.0", raw: `{"cniVersion":"9.0.0"}`, err: "unsupported"},
		{version: "", raw: `{"cniVersion":"9.0.0"}`, err: "unsupported"},
	} {
		res, cur, err := cni.ReadResult(tt.version, []byte(tt.raw))
		switch {
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
			t.Errorf("%q of version %q: error %v, want %s", tt.raw, tt.version, err, tt.err)
		case tt.err == "" && (err != nil || res == nil || cur == nil):
			t.Errorf("%q of version %q: %v, %v, %v", tt.raw, tt.version, res, cur, err)
		}
	}
}

func FuzzReadResult(f *testing.F) {
	for _, version := range []string{"0.3.1", "0.4.0"} {
		f.Add(version, []byte(`{"cniVersion":"`+version+`","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/x"}],"ips":[{"version":"4","address":"10.0.0.2/24","gateway":"10.0.0.1","interface":0}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{}}`))
	}
	f.Add("1.1.0", []byte(`{"cniVersion":"1.1.0","interfaces":[{"name":"obr0"},{"name":"og0"},{"name":"eth0","mtu":1462,"sandbox":"/x"}],"ips":[{"address":"10.0.0.2/24","interface":2},{"address":"fd00::2/64"}],"routes":[{"dst":"::/0","gw":"fd00::1","scope":0}]}`))
	f.Add("1.0.0", []byte(`{"cniVersion":"1.0.0","interfaces":[null],"ips":[null],"routes":[null]}`))
	f.Add("", []byte(`{"ip4":{"ip":"10.0.0.2/24","routes":[null]}}`))
	f.Add("0.2.0", []byte(`{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/24","gateway":"10.0.0.1","routes":[{"dst":"0.0.0.0/0"}]},"ip6":{}}`))
	f.Fuzz(func(t *testing.T, version string, raw []byte) {
		res, cur, err := cni.ReadResult(version, raw)
		if err != nil {
			return
		}
		if res == nil || slices.Contains(cur.Interfaces, nil) || slices.Contains(cur.IPs, nil) || slices.Contains(cur.Routes, nil) {
			t.Errorf("half a result: %v, %+v", res, cur)
		}
		// What can be read can be passed on.
		if version == "" {
			version = res.Version()
		}
		out, err := res.GetAsVersion(version)
		if err == nil {
			err = out.PrintTo(io.Discard)
		}
		if err != nil {
			t.Error(err)
		}
	})
}
