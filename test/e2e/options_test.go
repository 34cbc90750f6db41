package e2e

import (
	"fmt"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/test/cnitest"
)

const (
	secretFile = "/var/lib/ovs-gre/colour"
	secret     = "octarine-8"
	newSecret  = "infra-violet-9"
)

// TestTunnelOptions: further options are on every tunnel, are part of what CHECK
// looks at, and a secret among them is nowhere but in its file and in OVSDB.
func TestTunnelOptions(t *testing.T) {
	t.Parallel()
	l := lab(t, 2)
	h := l.Hosts[0]
	write := func(text, mode string) {
		for _, h := range l.Hosts {
			h.Shell(t, "rm -f "+secretFile+"; echo "+text+" >"+secretFile+"; chmod "+mode+" "+secretFile)
		}
	}
	// To OVS colour, x and x1 mean nothing: they are handed on all the same.
	n := cnitest.Network{OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"ports": "peer", "options": cnitest.Conf{"ttl": 33, "x": 1, "x1": 2, "colour": cnitest.Conf{"file": secretFile}}}}}
	n.Install(t, l)
	before := snapshot(t, h)

	var said strings.Builder
	note := func(texts ...string) { said.WriteString(strings.Join(texts, "\n") + "\n") }
	ctl := func(code int, args ...string) string {
		t.Helper()
		r := cnitest.Ctl(t, h, args...)
		note(r.Out, r.Err)
		if r.Code != code {
			t.Errorf("ovs-grectl %s: %d, want %d\n%s%s", strings.Join(args, " "), r.Code, code, r.Out, r.Err)
		}
		return r.Out + r.Err
	}

	for _, mode := range []string{"644", "640"} {
		write(secret, mode)
		c := cnitest.Container{Netns: h.NewNetns(t, "open"+mode), Network: "ovsnet", IfName: "eth0"}
		err := c.Call("add")
		wantWords(t, err, "tunnel.options.colour", secretFile, "chmod 600")
		note(fmt.Sprint(err))
		unchanged(t, h, before)
	}
	write(secret, "600")
	ctl(0, "plan")
	cs := one(t, l, "ovsnet")
	pairs(t, cs, false)
	tunnel := config.TunnelName("ovsnet", l.Hosts[1].Addr4)
	option := func(name string) string {
		return strings.Trim(h.Run(t, "ovs-vsctl", "--if-exists", "get", "interface", tunnel, "options:"+name), "\"\n")
	}
	if option("ttl") != "33" || option("colour") != secret {
		t.Errorf("options ttl %q, colour %q", option("ttl"), option("colour"))
	}
	report := func() {
		t.Helper()
		for _, args := range [][]string{{"status"}, {"status", "-o", "json"}, {"plan"}, {"plan", "-o", "json"}, {"doctor"}, {"doctor", "-o", "json"},
			{"validate"}, {"trace", cs[0].Addr(t, false).String(), cs[1].Addr(t, false).String()}, {"picture"}} {
			r := cnitest.Ctl(t, h, args...)
			note(r.Out, r.Err)
		}
		if err := cs[0].Call("check"); err != nil {
			note(fmt.Sprint(err))
		}
	}
	report()
	if err := cs[0].Call("check"); err != nil {
		t.Error(err)
	}

	// Another secret in the file, and one that somebody has set.
	for _, change := range []string{
		"echo " + newSecret + " >" + secretFile,
		"ovs-vsctl set interface " + tunnel + " options:colour=" + secret,
		"ovs-vsctl remove interface " + tunnel + " options colour",
	} {
		h.Shell(t, change)
		wantWords(t, cs[0].Call("check"), "colour is not as in "+secretFile)
		report()
		ctl(0, "up")
		if err := cs[0].Call("check"); err != nil || option("colour") != newSecret {
			t.Errorf("%s; up: %v, colour %q", change, err, option("colour"))
		}
	}

	// The option leaves the conflist: it leaves the tunnel, and its value is not told.
	n.OVSGRE = cnitest.Conf{"tunnel": cnitest.Conf{"ports": "peer", "options": cnitest.Conf{"tos": "inherit"}}}
	n.Install(t, l)
	report()
	ctl(0, "up")
	if option("colour") != "" || option("ttl") != "" || option("tos") != "inherit" {
		t.Errorf("options colour %q, ttl %q, tos %q", option("colour"), option("ttl"), option("tos"))
	}
	note(h.Shell(t, "cat $(find /run/ovs-gre -type f) /etc/cni/net.d/* /var/log/openvswitch/*.log"))
	for _, s := range []string{secret, newSecret} {
		for line := range strings.SplitSeq(said.String(), "\n") {
			// ovs-vsctl and ovs-vswitchd log what this test itself has them do.
			if strings.Contains(line, s) && !strings.Contains(line, "|vsctl|") {
				t.Errorf("a secret is told: %s", line)
			}
		}
	}
	ctl(0, "down", "--force")
}

// wantWords wants an error that has these words.
func wantWords(t *testing.T, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%v, want a word about %s", err, w)
		}
	}
}
