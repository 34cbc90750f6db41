package chains

import (
	"strings"
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// TestLimits holds what docs/runtimes.md says that these plugins do not do. Who
// sees it fail has good news for the documentation.
func TestLimits(t *testing.T) {
	t.Parallel()
	l := lab(t, cnitest.Network{Chain: []cnitest.Conf{
		{"type": "firewall", "backend": "iptables"}, {"type": "tuning", "mtu": 1400},
		{"type": "bandwidth", "capabilities": cnitest.Conf{"bandwidth": true}}}})
	h := l.Hosts[0]
	c := add(t, h, "ovsnet", "c1", limited)
	has := func(command, text string) bool { return strings.Contains(h.Shell(t, command), text) }
	call := func(plugin string, env ...string) error {
		_, err := cnitest.Plugin(h, plugin, "DEL", `{"cniVersion":"1.0.0","name":"ovsnet","type":"`+plugin+`"}`,
			append([]string{"CNI_CONTAINERID=" + c.id(t), "CNI_IFNAME=eth0"}, env...)...)
		return err
	}
	t.Run("bandwidth", func(t *testing.T) {
		const queues = "tc qdisc show"
		port := c.Result.Interfaces[1].Name
		if !has(queues, "tbf 1: dev "+port) || !has(queues, "ingress ffff: dev "+port) {
			t.Fatalf("no rate to begin with:\n%s", h.Shell(t, queues))
		}
		if err := h.StopOVS(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := h.StartOVS(t.Context()); err != nil {
			t.Fatal(err)
		}
		if has(queues, "tbf 1: dev "+port) || has(queues, "ingress ffff: dev "+port) {
			t.Errorf("Open vSwitch lets the rate be when it is restarted:\n%s", h.Shell(t, queues))
		}
		c.check(t)
	})
	t.Run("firewall", func(t *testing.T) {
		err := call("firewall", "CNI_NETNS="+c.Path)
		if err != nil || !has("iptables -S CNI-FORWARD", c.Addr(t, false).String()) {
			t.Errorf("DEL without the result of ADD takes the rules away: %v", err)
		}
	})
	t.Run("tuning", func(t *testing.T) {
		err := call("tuning", "CNI_NETNS=")
		if err != nil || !has("ls /run/cni/tuning", "_eth0.json") {
			t.Errorf("DEL without a namespace removes tuning's file: %v", err)
		}
	})
	t.Run("sbr", func(t *testing.T) {
		if err := call("sbr", "CNI_NETNS="); err == nil {
			t.Error("DEL without a namespace is no error")
		}
	})
	c.del(t)
}

// id is the container id that cnitool has made of the namespace's path.
func (c *container) id(t *testing.T) string {
	t.Helper()
	name := strings.TrimSpace(c.Host.Shell(t, "ls /var/lib/cni/results"))
	return strings.TrimSuffix(strings.TrimPrefix(name, c.Network+"-"), "-"+c.IfName)
}
