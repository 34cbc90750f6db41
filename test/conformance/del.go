package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// delBound is how long a DEL may take with everything dead. On an idle machine
// it is to be 2 s; the report prints the figure.
const delBound = 15 * time.Second

// linksAbsent wants no link of these names on the host.
func (t *try) linksAbsent(names []string) error {
	links, err := t.links(nil)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, there := links[name]; there {
			return fmt.Errorf("link %s is still there", name)
		}
	}
	return nil
}

// gone wants everything of a box to be gone that its result named and its IPAM held.
func (t *try) gone(b *box, outer []string) error {
	return t.eventually(func() error {
		if err := t.linksAbsent(outer); err != nil {
			return err
		}
		if hostLocal(t.net) {
			return t.freed(b)
		}
		return nil
	})
}

// outer are the links on the host that are the box's own: those of its result
// that no other attachment has.
func (t *try) outer(b *box) ([]string, error) {
	other, err := t.one(b.net)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range b.result.Interfaces {
		shared := false
		for _, o := range other.result.Interfaces {
			shared = shared || o.Name == i.Name
		}
		if i.Sandbox == "" && !shared {
			names = append(names, i.Name)
		}
	}
	return names, t.del(other)
}

// deleted attaches a box, lets f change it and the environment of DEL, calls
// DEL and wants everything to be gone.
func (t *try) deleted(f func(b *box) (env []string, err error)) error {
	b, err := t.one(t.net)
	if err != nil {
		return err
	}
	outer, err := t.outer(b)
	if err != nil {
		return err
	}
	env, err := f(b)
	if err != nil {
		return err
	}
	if err := t.del(b, env...); err != nil {
		return err
	}
	return t.gone(b, outer)
}

// lost deletes the box's namespace.
func (t *try) lost(b *box) error {
	return t.shell("ip netns delete " + strings.TrimPrefix(b.netns, netnsDir))
}

// refreshed makes another namespace of the same name.
func (t *try) refreshed(b *box) error { return errors.Join(t.lost(b), t.netns(b)) }

var delClauses = []Clause{
	{ID: "DEL-1", Kind: Spec, Says: "after ADD and DEL the host and the container are as before", try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		return t.unchanged(func() error {
			return all(func() error { return t.add(t.net, b) }, func() error { return t.del(b) })
		}, b)
	}},
	{ID: "DEL-2", Kind: Spec, Says: "CNI_NETNS unset", try: func(t *try) error {
		return t.deleted(func(b *box) ([]string, error) { return []string{"-CNI_NETNS"}, t.lost(b) })
	}},
	{ID: "DEL-3", Kind: Spec, Says: "CNI_NETNS empty", try: func(t *try) error {
		return t.deleted(func(b *box) ([]string, error) { return []string{"CNI_NETNS="}, t.lost(b) })
	}},
	{ID: "DEL-4", Kind: Spec, Says: "CNI_NETNS that no longer exists", try: func(t *try) error {
		return t.deleted(func(b *box) ([]string, error) { return nil, t.lost(b) })
	}},
	{ID: "DEL-5", Kind: Spec, Says: "CNI_NETNS that is by now another, empty namespace", try: func(t *try) error {
		return t.deleted(func(b *box) ([]string, error) { return nil, t.refreshed(b) })
	}},
	{ID: "DEL-6", Kind: Spec, Says: "a namespace without the interface", try: func(t *try) error {
		return t.deleted(func(b *box) ([]string, error) { _, err := t.inside(b, "ip link delete eth0"); return nil, err })
	}},
	{ID: "DEL-7", Kind: Promise, Says: "CNI_NETNS empty and the namespace alive: the links are gone all the same", try: func(t *try) error {
		return t.deleted(func(*box) ([]string, error) { return []string{"CNI_NETNS="}, nil })
	}},
	{ID: "DEL-8", Kind: Promise, Says: "CNI_NETNS of another container: that one stays attached", about: hasIPAM, try: func(t *try) error {
		other, err := t.one(t.net)
		if err != nil {
			return err
		}
		err = t.deleted(func(*box) ([]string, error) { return []string{"CNI_NETNS=" + other.netns}, nil })
		return errors.Join(err, t.fits(other))
	}},
	{ID: "DEL-9", Kind: Promise, Says: "CNI_NETNS that is no namespace", try: func(t *try) error {
		return t.deleted(func(b *box) ([]string, error) { return []string{"CNI_NETNS=/etc/hostname"}, t.lost(b) })
	}},
	{ID: "DEL-10", Kind: Spec, Says: "DEL again, and again without namespace and previous result", try: func(t *try) error {
		return t.deleted(func(b *box) ([]string, error) {
			err := t.del(b)
			b.prev = ""
			return []string{"CNI_NETNS="}, errors.Join(err, t.del(b), t.lost(b))
		})
	}},
	{ID: "DEL-11", Kind: Spec, Says: "DEL of what was never attached, with a namespace and without", try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		b.net = t.net
		return t.unchanged(func() error { return errors.Join(t.del(b), t.del(b, "CNI_NETNS=")) }, b)
	}},
	{ID: "DEL-12", Kind: Spec, Says: "DEL without a previous result", try: func(t *try) error {
		return t.deleted(func(b *box) ([]string, error) { b.prev = ""; return nil, nil })
	}},
	{ID: "DEL-13", Kind: Spec, Says: "DEL with CNI_ARGS empty, and with other ones than ADD had", try: func(t *try) error {
		return errors.Join(t.deleted(func(*box) ([]string, error) { return []string{"CNI_ARGS="}, nil }),
			t.deleted(func(*box) ([]string, error) { return []string{"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=other"}, nil }))
	}},
	{ID: "DEL-14", Kind: Promise, Says: "a configuration stripped to cniVersion, name, type, ipam.type", about: hasIPAM, try: func(t *try) error {
		return t.deleted(func(b *box) ([]string, error) {
			b.prev = ""
			b.net = b.net.edit(func(_ int, c conf) {
				ipam := c.ipam().str("type")
				for k := range c {
					if k != "type" {
						delete(c, k)
					}
				}
				if ipam != "" {
					c["ipam"] = conf{"type": ipam}
				}
			})
			return nil, nil
		})
	}},
	{ID: "DEL-15", Kind: Promise, Says: "a configuration whose addresses were edited since ADD", about: hasIPAM, try: func(t *try) error {
		return t.deleted(func(b *box) ([]string, error) {
			b.net = b.net.edit(func(_ int, c conf) { apart(map[string]any(c)) })
			return nil, nil
		})
	}},
	{ID: "DEL-16", Kind: Spec, Says: "IPAM DEL always runs: with the namespace, without it, again, and before any ADD", about: hasIPAM, try: func(t *try) error {
		b, err := t.one(t.net.recorded())
		if err != nil {
			return err
		}
		never, err := t.box()
		if err != nil {
			return err
		}
		never.net = b.net
		if err := errors.Join(t.del(b), t.lost(b), t.del(b), t.del(b, "CNI_NETNS="), t.del(b, "-CNI_NETNS"), t.del(never)); err != nil {
			return err
		}
		got, err1 := t.called("DEL", b.id)
		once, err2 := t.called("DEL", never.id)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if len(got) != 4 || len(once) != 1 {
			return fmt.Errorf("IPAM DEL ran %d times in 4 DELs, %d times in one", len(got), len(once))
		}
		for _, r := range got {
			if r.ifname != b.ifname {
				return fmt.Errorf("IPAM DEL got the interface %q", r.ifname)
			}
		}
		var c conf
		if err := json.Unmarshal([]byte(got[0].stdin), &c); err != nil || c.str("name") != b.net.name || c["prevResult"] == nil {
			return fmt.Errorf("IPAM DEL got the configuration %q (%w)", short(got[0].stdin), err)
		}
		return nil
	}},
	{ID: "DEL-17", Kind: Spec, Says: "IPAM DEL fails: its error is told", about: hasIPAM, try: func(t *try) error {
		b, err := t.one(t.net.recorded())
		if err != nil {
			return err
		}
		if err := t.tell("fail.DEL", `{"code":143,"msg":"cannot let go"}`); err != nil {
			return err
		}
		return failed(t.del(b), nil, "cannot let go")
	}},
	{ID: "DEL-18", Kind: Promise, Says: "IPAM DEL fails: the links are gone, and DEL later frees the address", about: hasIPAM, try: func(t *try) error {
		b, err := t.one(t.net.recorded())
		if err != nil {
			return err
		}
		outer, err := t.outer(b)
		if err != nil {
			return err
		}
		if err := t.tell("fail.DEL", `{"code":143,"msg":"cannot let go"}`); err != nil {
			return err
		}
		if err := failed(t.del(b), code(143)); err != nil {
			return err
		}
		if err := t.linksAbsent(outer); err != nil {
			return err
		}
		if err := errors.Join(t.forget("fail.DEL"), t.del(b)); err != nil {
			return err
		}
		return t.gone(b, outer)
	}},
	{ID: "DEL-19", Kind: Promise, Says: "IPAM plugin missing: an error that names it, the links gone, DEL later frees the address", about: hasIPAM, try: func(t *try) error {
		b, err := t.one(t.net.recorded())
		if err != nil {
			return err
		}
		outer, err := t.outer(b)
		if err != nil {
			return err
		}
		// Not by CNI_PATH: that would lead to the plugin.
		if err := failed(t.del(b, "CNI_PATH="+binDir), code(11), recorder); err != nil {
			return err
		}
		if err := t.linksAbsent(outer); err != nil {
			return err
		}
		if err := t.del(b); err != nil {
			return err
		}
		return t.gone(b, outer)
	}},
	{ID: "DEL-20", Kind: Promise, Says: "host's end of the veth pair deleted by hand", try: func(t *try) error {
		return t.deleted(func(b *box) ([]string, error) {
			outer, err := t.outer(b)
			if err != nil || len(outer) == 0 {
				return nil, errors.Join(err, fmt.Errorf("%d links of its own", len(outer)))
			}
			return nil, t.shell("ip link delete " + outer[0])
		})
	}},
	{ID: "DEL-21", Kind: Promise, Says: "a previous result that is none, or half a one", try: func(t *try) error {
		var errs []error
		for _, prev := range []string{`{}`, `"text"`, `{"cniVersion":"` + t.net.version + `","interfaces":[null],"ips":[null]}`, `{"cniVersion":"9.9.9"}`, `{"cniVersion":"` + t.net.version + `","ips":"none"}`} {
			errs = append(errs, about(prev, t.deleted(func(b *box) ([]string, error) { b.prev = prev; return nil, nil })))
		}
		return errors.Join(errs...)
	}},
	{ID: "DEL-22", Kind: Promise, Says: "OVSDB stopped: link and address gone, success; GC takes the port when OVSDB is back", about: hasOVS, try: func(t *try) error {
		return t.dead(t.host.StopOVSDB, t.host.StartOVSDB)
	}},
	{ID: "DEL-23", Kind: Promise, Says: "ovs-vswitchd dead: link and address gone, success", about: hasOVS, try: func(t *try) error {
		return t.dead(t.host.KillVswitchd, t.host.StartVswitchd)
	}},
	{ID: "DEL-24", Kind: Promise, Says: "OVS bridge deleted by hand", about: hasOVS, try: func(t *try) error {
		return t.deleted(func(b *box) ([]string, error) {
			return nil, t.shell("ovs-vsctl --timeout=30 del-br " + b.result.Interfaces[0].Name)
		})
	}},
}

// ports are the ports of all OVS bridges.
func (t *try) ports() ([]string, error) {
	out, err := t.output("ovs-vsctl --timeout=30 --bare --columns=name list port")
	return strings.Fields(out), err
}

// portless wants no OVS port of these names.
func (t *try) portless(names ...string) error {
	ports, err := t.ports()
	for _, p := range ports {
		for _, n := range names {
			if p == n {
				return fmt.Errorf("OVS port %s is still there", n)
			}
		}
	}
	return err
}
