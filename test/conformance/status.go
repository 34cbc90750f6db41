package conformance

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// statusBound is what a STATUS may take on however busy a machine. On an idle
// one it is to be 100 ms; the report prints the figure.
const statusBound = 10 * time.Second

// unable wants STATUS of the chain to fail with a code, and to change nothing.
func (t *try) unable(n network, codes []uint, words ...string) error {
	return t.unchanged(func() error { return failed(t.status(n), codes, words...) })
}

var statusClauses = []Clause{
	{ID: "STATUS-1", Kind: Library, Says: "before version 1.1.0: code 1", until: "1.0.0", try: func(t *try) error {
		return t.each(func(i int, _ string) error { return t.call(t.net, i, "STATUS", nil, nil).fails(code(1)) })
	}},
	{ID: "STATUS-2", Kind: Spec, Says: "success on a host without containers, without any variable of a container", since: "1.1.0", try: func(t *try) error {
		return t.status(t.net)
	}},
	{ID: "STATUS-3", Kind: Spec, Says: "success on a host with containers", since: "1.1.0", try: func(t *try) error {
		if _, err := t.attached(t.net, 2); err != nil {
			return err
		}
		return t.status(t.net)
	}},
	{ID: "STATUS-4", Kind: Spec, Says: "IPAM's STATUS runs, with the whole configuration", since: "1.1.0", about: hasIPAM, try: func(t *try) error {
		n := t.net.recorded()
		if err := t.status(n); err != nil {
			return err
		}
		got, err := t.called("STATUS", "")
		if err != nil {
			return err
		}
		if len(got) != 1 {
			return fmt.Errorf("IPAM STATUS ran %d times", len(got))
		}
		return equal(got[0].stdin, n.stdin(0, nil))
	}},
	{ID: "STATUS-5", Kind: Spec, Says: "IPAM's STATUS fails: its error is told", since: "1.1.0", about: hasIPAM, try: func(t *try) error {
		if err := t.tell("fail.STATUS", `{"code":50,"msg":"no address to be had"}`); err != nil {
			return err
		}
		return failed(t.status(t.net.recorded()), code(50), "no address to be had")
	}},
	{ID: "STATUS-6", Kind: Promise, Says: "IPAM's STATUS fails with 51 or with a code of its own: 51, and 50", since: "1.1.0", about: hasIPAM, try: func(t *try) error {
		var errs []error
		for _, c := range []struct{ said, want uint }{{51, 51}, {199, 50}} {
			if err := t.tell("fail.STATUS", fmt.Sprintf(`{"code":%d,"msg":"no address to be had"}`, c.said)); err != nil {
				return err
			}
			errs = append(errs, about(fmt.Sprint(c.said), failed(t.status(t.net.recorded()), code(c.want), "no address to be had")))
		}
		return errors.Join(errs...)
	}},
	{ID: "STATUS-7", Kind: Spec, Says: "IPAM plugin missing: an error", since: "1.1.0", about: hasIPAM, try: func(t *try) error {
		return failed(t.status(t.net.first(func(c conf) { c.ipam()["type"] = "no-such-ipam" })), nil)
	}},
	{ID: "STATUS-8", Kind: Promise, Says: "IPAM plugin missing: code 50, which names it", since: "1.1.0", about: hasIPAM, try: func(t *try) error {
		return failed(t.status(t.net.first(func(c conf) { c.ipam()["type"] = "no-such-ipam" })), code(50), "no-such-ipam")
	}},
	{ID: "STATUS-9", Kind: Spec, Says: "host-local has no address left: an error, until one is free", since: "1.1.0", about: hostLocal, try: func(t *try) error {
		return t.exhausted(nil)
	}},
	{ID: "STATUS-10", Kind: Promise, Says: "host-local has no address left: code 50", since: "1.1.0", about: hostLocal, try: func(t *try) error {
		return t.exhausted(code(50))
	}},
	{ID: "STATUS-11", Kind: Promise, Says: "STATUS changes nothing, without and with containers", since: "1.1.0", try: func(t *try) error {
		if err := t.unchanged(func() error { return t.status(t.net) }); err != nil {
			return err
		}
		if _, err := t.attached(t.net, 2); err != nil {
			return err
		}
		return t.unchanged(func() error { return t.status(t.net) })
	}},
	{ID: "STATUS-12", Kind: Promise, Says: "STATUS is fast", since: "1.1.0", try: func(t *try) error {
		if _, err := t.attached(t.net, 2); err != nil {
			return err
		}
		return t.each(func(i int, p string) error {
			var took []time.Duration
			for range 9 {
				a := t.call(t.net, i, "STATUS", nil, nil)
				if err := a.ok(); err != nil {
					return err
				}
				took = append(took, a.took)
			}
			slices.Sort(took)
			median := took[len(took)/2]
			if t.note != "" {
				t.note += ", "
			}
			t.note += fmt.Sprintf("%s took %v, of 9 the median; the least %v", p, median.Round(time.Millisecond), took[0].Round(time.Millisecond))
			if median > statusBound {
				return fmt.Errorf("%s took %v", p, median)
			}
			return nil
		})
	}},
	{ID: "STATUS-13", Kind: Spec, Says: "OVSDB stopped: code 50, which names the socket", since: "1.1.0", about: hasOVS, try: func(t *try) error {
		if err := t.broken(t.host.StopOVSDB, t.host.StartOVSDB); err != nil {
			return err
		}
		return t.unable(t.net, code(50), "db.sock")
	}},
	{ID: "STATUS-14", Kind: Spec, Says: "ovs-vswitchd dead: code 51", since: "1.1.0", about: hasOVS, try: func(t *try) error {
		if _, err := t.one(t.net); err != nil {
			return err
		}
		if err := t.broken(t.host.KillVswitchd, t.host.StartVswitchd); err != nil {
			return err
		}
		return t.unable(t.net, code(51), "ovs-vswitchd")
	}},
	{ID: "STATUS-15", Kind: Promise, Says: "a tunnel is missing while containers are attached: success, for the next ADD makes it", since: "1.1.0", about: hasOVS, try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		vars, err := t.vars(b)
		if err != nil {
			return err
		}
		if err := t.shell(vars + "ovs-vsctl --timeout=30 del-port $tunnel"); err != nil {
			return err
		}
		return t.status(t.net)
	}},
	{ID: "STATUS-16", Kind: Promise, Says: "a route is missing while containers are attached: success, for the next ADD makes it", since: "1.1.0", about: hasRoutes, try: func(t *try) error {
		if _, err := t.one(t.net); err != nil {
			return err
		}
		if err := t.shell(peerRoute + "ip route delete $r"); err != nil {
			return err
		}
		return t.status(t.net)
	}},
	{ID: "STATUS-17", Kind: Promise, Says: "nodesFile is not there: code 50, which names it", since: "1.1.0", about: ours, try: func(t *try) error {
		n := t.net.edit(func(_ int, c conf) {
			if c["nodes"] != nil {
				delete(c, "nodes")
				c["nodesFile"] = "/etc/cni/no-nodes.json"
			}
		})
		return t.each(func(i int, p string) error {
			if n.plugins[i]["nodesFile"] == nil {
				return nil
			}
			return t.call(n, i, "STATUS", nil, nil).fails(code(50), "/etc/cni/no-nodes.json")
		})
	}},
	{ID: "STATUS-18", Kind: Promise, Says: "somebody else's bridge of the same name: code 50, and it stays", since: "1.1.0", about: hasOVS, try: func(t *try) error {
		br := t.net.plugins[0].str("bridge")
		if br == "" {
			br = "obr0"
		}
		if err := t.shell("ovs-vsctl --timeout=30 add-br " + br + " -- set bridge " + br + " datapath_type=netdev"); err != nil {
			return err
		}
		t.defers(func() error { return t.shell("ovs-vsctl --timeout=30 del-br " + br) })
		return t.unable(t.net, code(50), br)
	}},
}

// exhausted has host-local give out its only address.
func (t *try) exhausted(codes []uint) error {
	a, err := t.net.free(0)
	if err != nil {
		return err
	}
	n := t.net.first(func(c conf) { narrow(map[string]any(c), a.String()) })
	n.name += "-narrow"
	if i := n.index("ovs-gre"); i == 0 {
		n.plugins[0]["bridge"] = "obr-narrow"
	}
	b, err := t.one(n)
	if err != nil {
		return err
	}
	if err := failed(t.status(n), codes); err != nil {
		return err
	}
	if err := t.del(b); err != nil {
		return err
	}
	return t.status(n)
}

// narrow leaves one address in the first range of host-local.
func narrow(c conf, address string) {
	ipam := c.ipam()
	if _, ok := ipam["subnet"]; ok {
		ipam["rangeStart"], ipam["rangeEnd"] = address, address
		return
	}
	set, _ := ipam["ranges"].([]any)
	inner, _ := set[0].([]any)
	r, _ := inner[0].(map[string]any)
	r["rangeStart"], r["rangeEnd"] = address, address
}
