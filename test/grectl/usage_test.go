package grectl

import (
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestUsage calls ovs-grectl as it should not be called.
func TestUsage(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 1, NoOVS: true, PluginDir: cnitest.BinDir(t)})
	h := l.Hosts[0]
	h.WriteFile(t, "/run/other.conflist", `{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"bridge"}]}`)
	for _, c := range []struct {
		args string
		code int
		text string
	}{
		{"", 2, "no command"},
		{"raise", 2, `unknown command "raise"`},
		{"statsu", 2, `unknown command "statsu": did you mean status?`},
		{"help statsu", 2, `did you mean status?`},
		{"up --verbose", 2, "unknown option --verbose\nusage: ovs-grectl up [FILE...]\n"},
		{"trace x", 2, "trace: it takes CONTAINER DESTINATION [PROTO [PORT]]\nusage: ovs-grectl trace CONTAINER"},
		{"validate", 2, "validate: it takes FILE..."},
		{"up --force", 2, "--force is for down alone"},
		{"up --next", 2, "unknown option --next"},
		{"key", 2, "no conflist in /etc/cni/net.d"},
		{"status --output", 2, "want json or text"},
		{"status --output yaml", 2, `"yaml": want json or text`},
		{"version file", 2, "version: it takes no file"},
		{"version", 0, "ovs-grectl "},
		{"--output=json version", 0, `"version": "`},
		{"--help", 0, "usage:"},
		{"up", 0, "no conflist in /etc/cni/net.d"},
		{"down", 0, "no conflist in /etc/cni/net.d"},
		{"plan", 2, "no conflist in /etc/cni/net.d"},
		{"status", 2, "no conflist in /etc/cni/net.d"},
		{"plan /nonexistent", 2, "ovs-grectl: /nonexistent: no such file or directory"},
		{"plan /run/other.conflist", 2, "names neither ovs-gre nor route-sync"},
		{"doctor /run/other.conflist", 1, "names neither ovs-gre nor route-sync"},
	} {
		r := ctl(t, h, strings.Fields(c.args)...)
		if r.code != c.code || !strings.Contains(r.out+r.err, c.text) {
			t.Errorf("%s: exit %d, want %d and %q\n%s%s", c.args, r.code, c.code, c.text, r.out, r.err)
		}
	}
}
