package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// addFails wants ADD of the first plugin to fail and nothing to be left.
func (t *try) addFails(n network, b *box, codes []uint, words []string, more conf, env ...string) error {
	return t.unchanged(func() error { return t.call(n, 0, "ADD", b, more, env...).fails(codes, words...) }, b)
}

const (
	mac1, mac2, mac3 = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"
)

// asked are MAC or IP addresses asked for in three ways, the first that is
// given counts.
type asked struct{ runtime, args, env string }

func (a asked) conf(key string, value func(string) any) conf {
	c := conf{}
	if a.runtime != "" {
		c["runtimeConfig"] = conf{key: value(a.runtime)}
	}
	if a.args != "" {
		c["args"] = conf{"cni": conf{key: value(a.args)}}
	}
	return c
}

// free is the nth address of the network's first range that nothing of a lab has.
func (n network) free(nth int) (netip.Addr, error) {
	ipam := clone(n.plugins[0].ipam())
	text := ipam.str("subnet")
	if ranges, ok := ipam["ranges"].([]any); ok && len(ranges) > 0 {
		if set, ok := ranges[0].([]any); ok && len(set) > 0 {
			if r, ok := set[0].(map[string]any); ok {
				text = conf(r).str("subnet")
			}
		}
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("ipam of the chain: want a subnet: %w", err)
	}
	a := p.Masked().Addr()
	for range 100 + nth {
		a = a.Next()
	}
	return a, nil
}

// precedence wants the address of a kind that counts to be the one given.
func (t *try) precedence(key string, value func(string) any, got func(*box) []string, one, two, three string) error {
	for _, a := range []asked{{one, two, three}, {"", two, three}, {"", "", three}, {one, "", three}, {one, two, ""}} {
		b, err := t.box()
		if err != nil {
			return err
		}
		env := "CNI_ARGS=IgnoreUnknown=1"
		if a.env != "" {
			env += ";" + map[string]string{"mac": "MAC", "ips": "IP"}[key] + "=" + a.env
		}
		if err := t.addWith(t.net, b, a.conf(key, value), env); err != nil {
			return fmt.Errorf("%+v: %w", a, err)
		}
		want := a.runtime
		if want == "" {
			want = a.args
		}
		if want == "" {
			want = a.env
		}
		if !slices.Contains(got(b), want) {
			return fmt.Errorf("%+v: got %v, want %s", a, got(b), want)
		}
		if err := t.del(b); err != nil {
			return err
		}
	}
	return nil
}

var addClauses = []Clause{
	{ID: "ADD-1", Kind: Spec, Says: "the interface is made in the namespace, up, as the result says: names, MACs, MTUs, addresses", try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		return t.fits(b)
	}},
	{ID: "ADD-2", Kind: Spec, Says: "the result has the version asked for, and keys of that version alone", try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		return shape(t.net.version, b.prev)
	}},
	{ID: "ADD-3", Kind: Spec, Says: "sandbox is CNI_NETNS for the container's interface and empty for the host's", try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		inner := 0
		for _, i := range b.result.Interfaces {
			if i.Sandbox != "" {
				inner++
			}
			if i.Sandbox != "" && i.Sandbox != b.netns {
				return fmt.Errorf("sandbox of %s is %q, want %q", i.Name, i.Sandbox, b.netns)
			}
		}
		if inner != 1 || len(b.result.Interfaces) < 2 {
			return fmt.Errorf("%d interfaces, %d of them with a sandbox", len(b.result.Interfaces), inner)
		}
		return nil
	}},
	{ID: "ADD-4", Kind: Spec, Says: "every address of the result points at the container's interface", about: hasIPAM, try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		return b.result.indexes(b)
	}},
	{ID: "ADD-5", Kind: Spec, Says: "every route of the result is in the container", about: hasIPAM, try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		out, err := t.inside(b, "ip route; ip -6 route")
		if err != nil {
			return err
		}
		for _, r := range b.result.Routes {
			dst := strings.NewReplacer("0.0.0.0/0", "default", "::/0", "default").Replace(r.Dst)
			want := dst
			if r.GW != "" {
				want += " via " + r.GW
			}
			if !strings.Contains(out, want) {
				return fmt.Errorf("no route %q among %q", want, short(out))
			}
		}
		return nil
	}},
	{ID: "ADD-6", Kind: Spec, Says: "an interface of that name exists: an error, and it stays as it is", try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		if _, err := t.inside(b, "ip link add eth0 type veth peer name eth9; ip address add 10.77.0.1/24 dev eth0; ip link set eth0 up"); err != nil {
			return err
		}
		return t.addFails(t.net, b, nil, nil, nil)
	}},
	{ID: "ADD-7", Kind: Spec, Says: "ADD again for the same container and name: an error, and the attachment stays", try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		if err := t.addFails(t.net, b, nil, nil, nil); err != nil {
			return err
		}
		return t.fits(b)
	}},
	{ID: "ADD-8", Kind: Spec, Says: "a name that the kernel does not take: an error", try: func(t *try) error {
		return t.badNames(func(b *box) error { return t.call(t.net, 0, "ADD", b, nil).fails(nil) })
	}},
	{ID: "ADD-9", Kind: Library, Says: "CNI_NETNS that is no namespace or not there: an error of code 8", try: func(t *try) error {
		b := nobody()
		return errors.Join(t.call(t.net, 0, "ADD", b, nil).fails(code(8)), t.call(t.net, 0, "ADD", b, nil, "CNI_NETNS=/etc/hostname").fails(code(8)))
	}},
	{ID: "ADD-10", Kind: Promise, Says: "CNI_NETNS that is no namespace or not there: nothing is left", try: func(t *try) error {
		return t.unchanged(func() error {
			b := nobody()
			return errors.Join(t.call(t.net, 0, "ADD", b, nil).fails(nil), t.call(t.net, 0, "ADD", b, nil, "CNI_NETNS=/etc/hostname").fails(nil))
		})
	}},
	{ID: "ADD-11", Kind: Library, Says: "CNI_NETNS that is the plugin's own: an error of code 8", try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		b.ifname, b.net = "own0", t.net
		t.defers(func() error { return t.shell("ip link delete own0 2>/dev/null || true") })
		return t.call(t.net, 0, "ADD", b, nil, "CNI_NETNS=/proc/self/ns/net").fails(code(8))
	}},
	{ID: "ADD-12", Kind: Promise, Says: "CNI_NETNS that is the plugin's own: nothing is made", try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		b.ifname, b.net = "own0", t.net
		return t.addFails(t.net, b, code(8), nil, nil, "CNI_NETNS=/proc/self/ns/net")
	}},
	{ID: "ADD-13", Kind: Spec, Says: "IPAM gets the same environment and the whole configuration", about: hasIPAM, try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		n, env := t.net.recorded(), "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=x"
		if err := t.add(n, b, env); err != nil {
			return err
		}
		got, err := t.called("ADD", "")
		if err != nil {
			return err
		}
		if len(got) != 1 {
			return fmt.Errorf("IPAM ADD ran %d times", len(got))
		}
		r := got[0]
		want := record{"ADD", b.id, b.ifname, b.netns, "IgnoreUnknown=1;K8S_POD_NAME=x", cniPath, r.stdin}
		if r != want {
			return fmt.Errorf("IPAM got %+v, want %+v", r, want)
		}
		return equal(r.stdin, n.stdin(0, nil))
	}},
	{ID: "ADD-14", Kind: Spec, Says: "what IPAM writes to standard error comes out of the plugin's", about: hasIPAM, try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		b.net = t.net.recorded()
		a := t.call(b.net, 0, "ADD", b, nil)
		if !strings.Contains(a.stderr, "recorder was here: ADD") {
			return fmt.Errorf("standard error is %q", short(a.stderr))
		}
		return a.ok()
	}},
	{ID: "ADD-15", Kind: Spec, Says: "IPAM ADD fails: its error is told, and IPAM DEL runs", about: hasIPAM, try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		if err := t.tell("fail.ADD", `{"cniVersion":"`+t.net.version+`","code":142,"msg":"no address today"}`); err != nil {
			return err
		}
		if err := t.call(t.net.recorded(), 0, "ADD", b, nil).fails(nil, "no address today"); err != nil {
			return err
		}
		return t.ipamDeleted(b)
	}},
	{ID: "ADD-16", Kind: Promise, Says: "IPAM ADD fails: nothing is left, and the code is IPAM's", about: hasIPAM, try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		if err := t.tell("fail.ADD", `{"cniVersion":"`+t.net.version+`","code":142,"msg":"no address today"}`); err != nil {
			return err
		}
		return t.addFails(t.net.recorded(), b, code(142), []string{"no address today"}, nil)
	}},
	{ID: "ADD-17", Kind: Spec, Says: "a failure after IPAM ADD: IPAM DEL runs", about: hasIPAM, try: func(t *try) error {
		b, err := t.late()
		if err != nil {
			return err
		}
		if err := t.call(t.net.recorded(), 0, "ADD", b, nil).fails(nil); err != nil {
			return err
		}
		return t.ipamDeleted(b)
	}},
	{ID: "ADD-18", Kind: Promise, Says: "a failure after IPAM ADD: nothing is left", about: hasIPAM, try: func(t *try) error {
		b, err := t.late()
		if err != nil {
			return err
		}
		return t.addFails(t.net.recorded(), b, nil, nil, nil)
	}},
	{ID: "ADD-19", Kind: Spec, Says: "one container, two interfaces; two containers: four attachments, all different", about: hasIPAM, try: func(t *try) error {
		list, err := t.attached(t.net, 2)
		if err != nil {
			return err
		}
		for _, b := range slices.Clone(list) {
			second := &box{id: b.id, ifname: "eth1", netns: b.netns}
			t.boxes = append(t.boxes, second)
			// IPAM's default route is there by eth0: each plugin may say no to a
			// second one, but not to the interface.
			n := t.net.first(func(c conf) {
				delete(c, "isDefaultGateway")
				if c.typ() == "ovs-gre" {
					c["isDefaultGateway"] = false
				}
			})
			if err := t.add(n, second); err != nil {
				return err
			}
			list = append(list, second)
		}
		return distinct(list)
	}},
	{ID: "ADD-20", Kind: Spec, Says: "six containers at once: all attached, all different, all checked, all detached", about: hasIPAM, try: func(t *try) error {
		var list []*box
		for range 6 {
			b, err := t.box()
			if err != nil {
				return err
			}
			list = append(list, b)
		}
		return all(
			func() error { return together(list, func(b *box) error { return t.add(t.net, b) }) },
			func() error { return distinct(list) },
			func() error { return together(list, t.fits) },
			func() error { return together(list, func(b *box) error { return t.del(b) }) },
		)
	}},
	{ID: "ADD-21", Kind: Spec, Says: "a chained plugin passes the previous result on, in every part", about: chained, try: func(t *try) error {
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		first, err := t.box()
		if err != nil {
			return err
		}
		first.net = t.net
		prev := t.call(t.net, 0, "ADD", first, nil)
		if err := prev.ok(); err != nil {
			return err
		}
		var r result
		if err := json.Unmarshal([]byte(prev.stdout), &r); err != nil {
			return err
		}
		if len(b.result.Interfaces) < len(r.Interfaces) || len(b.result.IPs) < len(r.IPs) || len(b.result.Routes) < len(r.Routes) {
			return fmt.Errorf("of %s the chain left %s", short(prev.stdout), short(b.prev))
		}
		return nil
	}},
	{ID: "ADD-22", Kind: Promise, Says: "route-sync passes the previous result on unchanged, a tap's as well", about: hasRoutes, try: func(t *try) error {
		i := t.net.index("route-sync")
		b, err := t.box()
		if err != nil {
			return err
		}
		b.net = t.net
		prev := t.call(t.net, 0, "ADD", b, nil)
		if err := prev.ok(); err != nil {
			return err
		}
		var tap map[string]any
		if err := json.Unmarshal([]byte(prev.stdout), &tap); err != nil {
			return err
		}
		list := tap["interfaces"].([]any)
		// A tap has no end on the host, and tells of DNS.
		tap["interfaces"] = []any{list[0], list[len(list)-1]}
		for _, ip := range tap["ips"].([]any) {
			ip.(map[string]any)["interface"] = 1
		}
		tap["dns"] = map[string]any{"nameservers": []string{"192.0.2.1"}, "search": []string{"example.org"}}
		other, err := json.Marshal(tap)
		if err != nil {
			return err
		}
		var errs []error
		for _, p := range []string{prev.stdout, string(other)} {
			a := t.call(t.net, i, "ADD", b, prevResult(p))
			if err := a.ok(); err != nil {
				return err
			}
			errs = append(errs, equal(a.stdout, p))
		}
		return errors.Join(errs...)
	}},
	{ID: "ADD-23", Kind: Promise, Says: "route-sync without a previous result: code 7, nothing made", about: hasRoutes, try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		i := t.net.index("route-sync")
		return t.unchanged(func() error {
			return errors.Join(t.call(t.net, i, "ADD", b, nil).fails(code(7), "prevResult"),
				t.call(t.net, i, "ADD", b, conf{"prevResult": nil}).fails(code(7), "prevResult"),
				t.call(t.net, i, "ADD", b, conf{"prevResult": "text"}).fails(code(6, 7)),
				t.call(t.net, i, "ADD", b, conf{"prevResult": conf{"cniVersion": t.net.version, "interfaces": []any{nil}}}).fails(code(7), "prevResult"),
				t.call(t.net, i, "ADD", b, conf{"prevResult": conf{"cniVersion": "1.0.0", "ips": "none"}}).fails(code(7), "prevResult"))
		})
	}},
	{ID: "ADD-24", Kind: Promise, Says: "MAC: runtimeConfig before args.cni before CNI_ARGS", about: takesMAC, try: func(t *try) error {
		got := func(b *box) []string {
			if i := b.result.inner(b); i != nil {
				return []string{i.Mac}
			}
			return nil
		}
		return t.precedence("mac", func(s string) any { return s }, got, mac1, mac2, mac3)
	}},
	{ID: "ADD-25", Kind: Promise, Says: "IP: runtimeConfig before args.cni before CNI_ARGS, the others ignored", about: hostLocalIPs, try: func(t *try) error {
		var ips [3]string
		for i := range ips {
			a, err := t.net.free(i)
			if err != nil {
				return err
			}
			ips[i] = a.String()
		}
		got := func(b *box) (list []string) {
			for _, p := range b.result.addrs() {
				list = append(list, p.Addr().String())
			}
			return list
		}
		return t.precedence("ips", func(s string) any { return []string{s} }, got, ips[0], ips[1], ips[2])
	}},
	{ID: "ADD-26", Kind: Spec, Says: "unknown keys in CNI_ARGS with IgnoreUnknown are ignored", try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		return t.add(t.net, b, "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=;NERDCTL_CNI_DHCP_HOSTNAME=0123")
	}},
	{ID: "ADD-27", Kind: Promise, Says: "unknown keys in CNI_ARGS without IgnoreUnknown: let be, or an error of code 4 or 7", try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		was, err := t.steady(b)
		if err != nil {
			return err
		}
		b.net = t.net
		a := t.call(t.net, 0, "ADD", b, nil, "CNI_ARGS=FLAVOUR=vanilla")
		if a.exit == 0 {
			return t.del(b)
		}
		return errors.Join(a.fails(code(4, 7), "FLAVOUR"), t.same(was, b))
	}},
	{ID: "ADD-28", Kind: Promise, Says: "CNI_ARGS that are none, or have no address for MAC or IP: code 4 or 7, nothing left", about: hostLocalIPs, try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		var errs []error
		for _, args := range []string{"nonsense", "IgnoreUnknown=1;MAC=zz", "IgnoreUnknown=1;IP=zz"} {
			errs = append(errs, about(args, t.addFails(t.net, b, code(4, 7), nil, nil, "CNI_ARGS="+args)))
		}
		return errors.Join(errs...)
	}},
	{ID: "ADD-29", Kind: Spec, Says: "without ipam: an interface without addresses", try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		n := t.net.first(func(c conf) {
			for _, k := range []string{"ipam", "isGateway", "isDefaultGateway"} {
				delete(c, k)
			}
		})
		if err := t.add(n, b); err != nil {
			return err
		}
		if len(b.result.IPs) > 0 {
			return fmt.Errorf("addresses %v", b.result.IPs)
		}
		return all(func() error { return t.fits(b) }, func() error { return shape(t.net.version, b.prev) })
	}},
	{ID: "ADD-30", Kind: Promise, Says: "a name that the kernel does not take: nothing is left", try: func(t *try) error {
		return t.badNames(func(b *box) error { return t.addFails(t.net, b, nil, nil, nil) })
	}},
	{ID: "ADD-31", Kind: Promise, Says: "IPAM ADD that prints no result, or half a one: an error, nothing is left", about: hasIPAM, try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		var errs []error
		for _, says := range []string{"", "nonsense", "{}", `{"cniVersion":"` + t.net.version + `","ips":[null],"routes":[null]}`, `{"cniVersion":"` + t.net.version + `"}`,
			`{"cniVersion":"` + t.net.version + `","ips":[{"version":"4","address":"nowhere"}]}`} {
			if err := t.tell("say.ADD", says); err != nil {
				return err
			}
			errs = append(errs, about(fmt.Sprintf("%q", says), t.addFails(t.net.recorded(), b, nil, nil, nil)))
		}
		return errors.Join(errs...)
	}},
}

// badNames calls f for boxes whose interface's name is one of a template, and
// of a directory in net.ipv4.conf.
func (t *try) badNames(f func(*box) error) error {
	var errs []error
	for _, name := range []string{"eth%d", "default"} {
		b, err := t.box()
		if err != nil {
			return err
		}
		b.ifname, b.net = name, t.net
		errs = append(errs, about(name, f(b)))
	}
	return errors.Join(errs...)
}

// ipamDeleted wants IPAM DEL to have run after IPAM ADD.
func (t *try) ipamDeleted(b *box) error {
	got, err := t.calls()
	if err != nil {
		return err
	}
	var verbs []string
	for _, r := range got {
		if r.id == b.id {
			verbs = append(verbs, r.verb)
		}
	}
	if !slices.Equal(verbs, []string{"ADD", "DEL"}) {
		return fmt.Errorf("IPAM was called to %v, want ADD, DEL", verbs)
	}
	return nil
}

// late has IPAM ADD succeed with a route that the kernel refuses.
func (t *try) late() (*box, error) {
	b, err := t.one(t.net)
	if err != nil {
		return nil, err
	}
	r := map[string]any{"cniVersion": t.net.version, "ips": clone(b.result.IPs), "routes": []any{map[string]any{"dst": "198.51.100.0/24", "gw": "203.0.113.77"}}}
	var ips []any
	for _, ip := range b.result.IPs {
		e := map[string]any{"address": ip.Address, "gateway": ip.Gateway}
		if !atLeast(t.net.version, "1.0.0") {
			e["version"] = ip.Version
		}
		ips = append(ips, e)
	}
	r["ips"] = ips
	raw, err := json.Marshal(r)
	if err == nil {
		err = t.del(b)
	}
	if err == nil {
		err = t.tell("say.ADD", string(raw))
	}
	return b, err
}
