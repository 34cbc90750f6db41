package agent

import (
	"fmt"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestSecrets: the value of a tunnel's option that is from a file, and that of a file
// that is not as it should be, is in no log, page, metric or file of the agent's,
// which takes a new value and mends what somebody has set.
func TestSecrets(t *testing.T) {
	const (
		file             = "/var/lib/ovs-gre/colour"
		first, next, bad = "octarine-8", "infra-violet-9", "ultra-black-10"
	)
	l := lab(t, 2, 2)
	h := l.Hosts[0]
	with := strings.Replace(conf(t, l), `"type": "ovs-gre"`, `"type": "ovs-gre", "tunnel": {"options": {"colour": {"file": "`+file+`"}}}`, 1)
	for _, h := range l.Hosts {
		h.WriteFile(t, template, with)
		h.Shell(t, "umask 077; echo "+first+" >"+file)
	}
	agents := []*agent{start(t, h, "--resync", "500ms"), start(t, l.Hosts[1])}
	for _, a := range agents {
		a.ready(t)
	}
	cs := cnitest.AddAll(t, l, network)
	cnitest.AllReach(t, cs)
	tunnel := config.TunnelName(network, l.Hosts[1].Addr4)
	comes := func(after, want string) {
		t.Helper()
		h.Shell(t, after)
		testnet.Eventually(t, longest, func() error {
			if is := h.Run(t, "ovs-vsctl", "--if-exists", "get", "interface", tunnel, "options:colour"); !strings.Contains(is, want) {
				return fmt.Errorf("%s; colour is %s, want %s", after, is, want)
			}
			return nil
		})
	}
	comes("echo "+next+" >"+file, next)
	comes("ovs-vsctl set interface "+tunnel+" options:colour="+first, next)
	// One that others may read is not taken, and said to be so.
	h.Shell(t, "echo "+bad+" >"+file+"; chmod 644 "+file)
	testnet.Eventually(t, longest, func() error {
		if !strings.Contains(agents[0].said(), "chmod 600") {
			return fmt.Errorf("the agent says nothing about the file's mode")
		}
		return nil
	})
	page, _ := agents[0].fetch(9179, "localhost:9179", "/")
	metrics, _ := agents[0].get("/metrics")
	all := page + metrics + agents[0].said() + agents[1].said() + h.Shell(t, "cat "+conflist+" $(find /run/ovs-gre -type f) /var/log/openvswitch/*.log | grep -v 'vsctl|'")
	for _, s := range []string{first, next, bad} {
		for line := range strings.SplitSeq(all, "\n") {
			if strings.Contains(line, s) {
				t.Errorf("a secret is told: %s", line)
			}
		}
	}
	comes("chmod 600 "+file, bad)
}
