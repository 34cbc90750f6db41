package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A breakage is something that CHECK must find.
type breakage struct {
	id   string
	kind Kind
	says string
	// inside is a script for the container, host one for the host; it finds
	// br, port, tunnel, datapath and network set where there is OVS.
	inside, host string
	about        func(network) bool
	// words must be in the message, which must have code, if it is not 0.
	code  uint
	words []string
}

// drift is the code that ovs-gre and route-sync give in CHECK.
const drift = 100

func (k breakage) clause() Clause {
	return Clause{ID: k.id, Kind: k.kind, Says: k.says, since: "0.4.0", about: k.about, try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		if err := t.check(b); err != nil {
			return fmt.Errorf("CHECK before: %w", err)
		}
		vars := ""
		if hasOVS(t.net) {
			if vars, err = t.vars(b); err != nil {
				return err
			}
		}
		if k.inside != "" {
			if _, err := t.inside(b, k.inside); err != nil {
				return err
			}
		}
		if k.host != "" {
			if err := t.shell(vars + k.host); err != nil {
				return err
			}
		}
		var codes []uint
		if k.code != 0 {
			codes = code(k.code)
		}
		return failed(t.check(b), codes, k.words...)
	}}
}

// notDirect: routes go by the tunnel.
func notDirect(n network) bool {
	i := n.index("route-sync")
	return hasBoth(n) && n.plugins[i].str("mode") != "direct"
}

func hasMasq(n network) bool { on, _ := n.plugins[0]["ipMasq"].(bool); return hasOVS(n) && on }

// peerRoute is a shell function that prints a route of route-sync's.
const peerRoute = `r=$(ip route show proto 121 | head -n1 | cut -d' ' -f1); [ "$r" ]; `

var breakages = []breakage{
	{id: "CHECK-5", kind: Spec, says: "interface deleted: an error", inside: "ip link delete eth0"},
	{id: "CHECK-6", kind: Spec, says: "address removed: an error", about: hasIPAM, inside: "ip address flush dev eth0 scope global"},
	{id: "CHECK-7", kind: Spec, says: "default route removed: an error", about: hasIPAM, inside: "ip route delete default"},
	{id: "CHECK-8", kind: Promise, says: "interface down: an error", inside: "ip link set eth0 down"},
	{id: "CHECK-9", kind: Spec, says: "reservation lost in host-local: an error", about: hostLocal, host: "rm /var/lib/cni/networks/*/*.*.*.*"},

	{id: "CHECK-18", kind: Promise, says: "veth not in the OVS bridge: code 100 and its name", about: hasOVS, code: drift, words: []string{"OVS port", "missing"},
		host: "ovs-vsctl --timeout=30 del-port $br $port"},
	{id: "CHECK-19", kind: Promise, says: "port on another bridge: code 100, both bridges", about: hasOVS, code: drift, words: []string{"OVS port", "other"}, host: `p=$(ovs-vsctl --timeout=30 get port $port _uuid)
ovs-vsctl --timeout=30 add-br other -- set bridge other datapath_type=$datapath -- remove bridge $br ports $p -- add bridge other ports $p`},
	{id: "CHECK-20", kind: Promise, says: "port's VLAN tag changed: code 100", about: hasOVS, code: drift, words: []string{"tag"}, host: "ovs-vsctl --timeout=30 set port $port tag=7"},
	{id: "CHECK-21", kind: Promise, says: "tunnel to a peer missing: code 100", about: hasOVS, code: drift, words: []string{"tunnel", "missing"}, host: "ovs-vsctl --timeout=30 del-port $tunnel"},
	{id: "CHECK-22", kind: Promise, says: "masquerade missing: code 100", about: hasMasq, code: drift, words: []string{"masquerade"}, host: "nft delete table inet ovs-gre-$network"},
	{id: "CHECK-23", kind: Promise, says: "gateway address missing: code 100", about: hasOVS, code: drift, words: []string{"address"}, host: "ip address flush dev $br scope global"},
	{id: "CHECK-24", kind: Promise, says: "bridge down: code 100", about: hasOVS, code: drift, words: []string{"down"}, host: "ip link set $br down"},
	{id: "CHECK-25", kind: Promise, says: "peer route missing: code 100 and the route", about: hasRoutes, code: drift, words: []string{"route", "missing"}, host: peerRoute + "ip route delete $r"},
	{id: "CHECK-26", kind: Promise, says: "peer route elsewhere: code 100 and both ways", about: hasRoutes, code: drift, words: []string{"route", "172.16.32.2"}, host: peerRoute + "ip route replace $r via 172.16.32.2 proto 121"},
	{id: "CHECK-27", kind: Promise, says: "peer's neighbour entry missing: code 100", about: notDirect, code: drift, words: []string{"neighbour", "missing"}, host: "ip neigh flush dev $br-t nud permanent"},
}

func breakageClauses(breakages []breakage) (list []Clause) {
	for _, b := range breakages {
		list = append(list, b.clause())
	}
	return list
}

var checkClauses = slices.Concat(checkFirst, breakageClauses(breakages[:5]), checkMore, breakageClauses(breakages[5:]))

var checkFirst = []Clause{
	{ID: "CHECK-1", Kind: Library, Says: "before version 0.4.0: code 1", until: "0.3.1", try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		return t.each(func(i int, _ string) error { return t.call(t.net, i, "CHECK", b, prevResult(b.prev)).fails(code(1)) })
	}},
	{ID: "CHECK-2", Kind: Spec, Says: "right after ADD, five times: no error", since: "0.4.0", try: func(t *try) error {
		for range 5 {
			b, err := t.one(t.net)
			if err == nil {
				err = t.check(b)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}},
	{ID: "CHECK-3", Kind: Spec, Says: "without a previous result: an error", since: "0.4.0", try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		return t.each(func(i int, _ string) error { return t.call(t.net, i, "CHECK", b, nil).fails(nil) })
	}},
	{ID: "CHECK-4", Kind: Promise, Says: "without a previous result: code 7, which names it", since: "0.4.0", about: ours, try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		return t.each(func(i int, p string) error {
			if p != "ovs-gre" && p != "route-sync" {
				return nil
			}
			return t.call(t.net, i, "CHECK", b, nil).fails(code(7), "prevResult")
		})
	}},
}

var checkMore = []Clause{
	{ID: "CHECK-10", Kind: Spec, Says: "an interface changed by tuning, ports mapped, bandwidth limited by later plugins: no error", since: "0.4.0", about: hasIPAM, try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		n := t.net.with(
			conf{"type": "tuning", "promisc": true, "mtu": 1300},
			conf{"type": "portmap", "runtimeConfig": conf{"portMappings": []conf{{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}}}},
			conf{"type": "bandwidth", "ingressRate": 1 << 20, "ingressBurst": 1 << 20, "egressRate": 1 << 20, "egressBurst": 1 << 20})
		if err := t.tooled(n, b); err != nil {
			return err
		}
		// As ADD left it, and by whatever the plugin itself would have said.
		return t.check(b)
	}},
	{ID: "CHECK-11", Kind: Spec, Says: "more addresses and routes in the container and on the host: no error", since: "0.4.0", about: hasIPAM, try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		if _, err := t.inside(b, "ip address add 10.77.0.1/24 dev eth0; ip route add 198.51.100.0/24 via 10.77.0.2; ip link add more type veth peer name more9; tc qdisc add dev eth0 root pfifo"); err != nil {
			return err
		}
		if err := t.shell("ip route add 198.51.100.0/24 via 172.16.32.2"); err != nil {
			return err
		}
		t.defers(func() error { return t.shell("ip route delete 198.51.100.0/24") })
		return t.check(b)
	}},
	{ID: "CHECK-12", Kind: Spec, Says: "IPAM's CHECK runs, with the whole configuration", since: "0.4.0", about: hasIPAM, try: func(t *try) error {
		b, err := t.one(t.net.recorded())
		if err != nil {
			return err
		}
		if err := t.check(b); err != nil {
			return err
		}
		got, err := t.called("CHECK", b.id)
		if err != nil {
			return err
		}
		if len(got) != 1 {
			return fmt.Errorf("IPAM CHECK ran %d times", len(got))
		}
		return equal(got[0].stdin, b.net.stdin(0, prevResult(b.prev)))
	}},
	{ID: "CHECK-13", Kind: Spec, Says: "IPAM's CHECK fails: its error is told", since: "0.4.0", about: hasIPAM, try: func(t *try) error {
		b, err := t.one(t.net.recorded())
		if err != nil {
			return err
		}
		if err := t.tell("fail.CHECK", `{"code":144,"msg":"never heard of it"}`); err != nil {
			return err
		}
		return failed(t.check(b), nil, "never heard of it")
	}},
	{ID: "CHECK-14", Kind: Promise, Says: "CHECK changes nothing, neither when all is well nor when not", since: "0.4.0", try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		if err := t.unchanged(func() error { return t.check(b) }, b); err != nil {
			return err
		}
		if _, err := t.inside(b, "ip link delete eth0"); err != nil {
			return err
		}
		return t.unchanged(func() error { return failed(t.check(b), nil) }, b)
	}},
	{ID: "CHECK-15", Kind: Spec, Says: "after DEL: an error", since: "0.4.0", try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		if err := t.del(b); err != nil {
			return err
		}
		return failed(t.check(b), nil)
	}},
	{ID: "CHECK-16", Kind: Spec, Says: "ovs-vswitchd, which connects the container, is dead: an error that says so", since: "0.4.0", about: hasOVS, try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		if err := t.broken(t.host.KillVswitchd, t.host.StartVswitchd); err != nil {
			return err
		}
		return failed(t.check(b), code(drift), "ovs-vswitchd")
	}},
	{ID: "CHECK-17", Kind: Spec, Says: "OVSDB is stopped: an error that says so", since: "0.4.0", about: hasOVS, try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		if err := t.broken(t.host.StopOVSDB, t.host.StartOVSDB); err != nil {
			return err
		}
		return failed(t.check(b), code(11, drift), "OVSDB")
	}},
}

// tooled is add of a chain that ends in tools, which are not among the chain's
// binaries.
func (t *try) tooled(n network, b *box) error {
	if err := t.add(n, b); err != nil {
		return err
	}
	link, err := t.inside(b, "ip -o link show eth0")
	if err == nil && !strings.Contains(link, "PROMISC") {
		err = errors.New("tuning has not changed the interface: " + short(link))
	}
	return err
}
