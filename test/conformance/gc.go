package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
)

// A litter is a network with attachments that nobody wants any more.
type litter struct {
	// lost has no namespace, stale still has one; live is to be kept.
	lost, stale, live *box
	// outer are the links of lost and stale.
	outer []string
}

func (t *try) litter(n network) (*litter, error) {
	list, err := t.attached(n, 3)
	if err != nil {
		return nil, err
	}
	l := &litter{lost: list[0], stale: list[1], live: list[2]}
	for _, b := range list[:2] {
		for _, i := range b.result.Interfaces {
			if i.Sandbox == "" && !slices.ContainsFunc(l.live.result.Interfaces, func(o iface) bool { return o.Name == i.Name }) {
				l.outer = append(l.outer, i.Name)
			}
		}
	}
	if len(l.outer) == 0 {
		return nil, errors.New("no links of their own in the results")
	}
	return l, t.lost(l.lost)
}

// linksGone wants the links of what was not valid to be gone, from OVS too.
func (t *try) linksGone(l *litter) error {
	if err := t.linksAbsent(l.outer); err != nil {
		return err
	}
	if hasOVS(t.net) {
		return t.portless(l.outer...)
	}
	return nil
}

// kept wants a box to be as GC found it.
func (t *try) kept(b *box) error {
	if err := t.fits(b); err != nil {
		return err
	}
	if hostLocal(t.net) {
		held, err := t.holds(b.net)
		if err != nil || len(held[b.id]) == 0 {
			return errors.Join(err, fmt.Errorf("host-local no longer holds an address for %s", b.id))
		}
	}
	return t.check(b)
}

// collects wants GC with these keys to take everything but live, or live too.
func (t *try) collects(more func(l *litter) conf, live bool) error {
	l, err := t.litter(t.net)
	if err != nil {
		return err
	}
	if err := t.gcWith(t.net, more(l)); err != nil {
		return err
	}
	errs := []error{t.linksGone(l)}
	gone := []*box{l.lost, l.stale}
	if live {
		errs = append(errs, t.kept(l.live))
	} else {
		gone = append(gone, l.live)
	}
	for _, b := range gone {
		if hostLocal(t.net) {
			errs = append(errs, t.freed(b))
		}
	}
	return errors.Join(errs...)
}

// both are the keys of a list as libcni gives them.
func both(list any) conf { return conf{validKey: list, legacyKey: list} }

var gcClauses = []Clause{
	{ID: "GC-1", Kind: Library, Says: "before version 1.1.0: code 1", until: "1.0.0", try: func(t *try) error {
		return t.each(func(i int, _ string) error {
			return t.call(t.net, i, "GC", nil, both(attachments())).fails(code(1))
		})
	}},
	{ID: "GC-2", Kind: Spec, Says: "links of attachments that are not valid are removed", since: "1.1.0", try: func(t *try) error {
		l, err := t.litter(t.net)
		if err != nil {
			return err
		}
		if err := t.gc(t.net, l.live); err != nil {
			return err
		}
		return t.eventually(func() error { return t.linksGone(l) })
	}},
	{ID: "GC-3", Kind: Spec, Says: "addresses of attachments that are not valid are freed", since: "1.1.0", about: hostLocal, try: func(t *try) error {
		l, err := t.litter(t.net)
		if err != nil {
			return err
		}
		if err := t.gc(t.net, l.live); err != nil {
			return err
		}
		return errors.Join(t.freed(l.lost), t.freed(l.stale))
	}},
	{ID: "GC-4", Kind: Spec, Says: "valid attachments stay as they are", since: "1.1.0", try: func(t *try) error {
		l, err := t.litter(t.net)
		if err != nil {
			return err
		}
		if err := t.gc(t.net, l.live, l.stale); err != nil {
			return err
		}
		return errors.Join(t.kept(l.live), t.kept(l.stale))
	}},
	{ID: "GC-5", Kind: Library, Says: "the older key cni.dev/attachments alone does the same", since: "1.1.0", try: func(t *try) error {
		return t.collects(func(l *litter) conf { return conf{legacyKey: attachments(l.live)} }, true)
	}},
	{ID: "GC-6", Kind: Spec, Says: "the key cni.dev/valid-attachments alone does the same", since: "1.1.0", try: func(t *try) error {
		return t.collects(func(l *litter) conf { return conf{validKey: attachments(l.live)} }, true)
	}},
	{ID: "GC-7", Kind: Spec, Says: "an empty list: nothing is valid, all is removed", since: "1.1.0", try: func(t *try) error {
		return t.collects(func(*litter) conf { return both([]conf{}) }, false)
	}},
	{ID: "GC-8", Kind: Library, Says: "null, as libcni writes an empty list: all is removed", since: "1.1.0", try: func(t *try) error {
		return t.collects(func(*litter) conf { return both(json.RawMessage("null")) }, false)
	}},
	{ID: "GC-9", Kind: Promise, Says: "neither key, as cnitool calls it: success, nothing is removed", since: "1.1.0", try: func(t *try) error {
		l, err := t.litter(t.net)
		if err != nil {
			return err
		}
		return t.unchanged(func() error { return t.gcWith(t.net, nil) }, l.live, l.stale)
	}},
	{ID: "GC-10", Kind: Promise, Says: "a list of the wrong form: code 6 or 7, nothing is removed", since: "1.1.0", try: func(t *try) error {
		l, err := t.litter(t.net)
		if err != nil {
			return err
		}
		good := attachments(l.live)
		return t.unchanged(func() error {
			var errs []error
			for _, bad := range []any{"text", 7, true, conf{}, []any{"text"}, []any{7}, []any{nil}, []any{conf{}}, []any{good[0], conf{"containerID": "x"}}, []any{conf{"ifname": "eth0"}}, []any{conf{"containerID": 7, "ifname": "eth0"}}} {
				for i := range t.net.plugins {
					raw, _ := json.Marshal(bad)
					errs = append(errs, about(string(raw), t.call(t.net, i, "GC", nil, both(bad)).fails(code(6, 7), "attachments")))
				}
			}
			return errors.Join(errs...)
		}, l.live, l.stale)
	}},
	{ID: "GC-11", Kind: Spec, Says: "IPAM's GC runs, with the whole configuration", since: "1.1.0", about: hasIPAM, try: func(t *try) error {
		n := t.net.recorded()
		l, err := t.litter(n)
		if err != nil {
			return err
		}
		if err := t.gc(n, l.live); err != nil {
			return err
		}
		got, err := t.called("GC", "")
		if err != nil {
			return err
		}
		if len(got) != 1 {
			return fmt.Errorf("IPAM GC ran %d times", len(got))
		}
		return equal(got[0].stdin, n.stdin(0, both(attachments(l.live))))
	}},
	{ID: "GC-12", Kind: Promise, Says: "IPAM's DEL runs for each attachment that is not valid, then IPAM's GC", since: "1.1.0", about: hasIPAM, try: func(t *try) error {
		n := t.net.recorded()
		l, err := t.litter(n)
		if err != nil {
			return err
		}
		if err := t.gc(n, l.live); err != nil {
			return err
		}
		return t.order(l)
	}},
	{ID: "GC-13", Kind: Spec, Says: "IPAM's GC fails: the rest is done, the error is told", since: "1.1.0", about: hasIPAM, try: func(t *try) error {
		n := t.net.recorded()
		l, err := t.litter(n)
		if err != nil {
			return err
		}
		if err := t.tell("fail.GC", `{"code":145,"msg":"cannot sweep"}`); err != nil {
			return err
		}
		if err := failed(t.gc(n, l.live), nil, "cannot sweep"); err != nil {
			return err
		}
		return t.linksGone(l)
	}},
	{ID: "GC-14", Kind: Promise, Says: "IPAM's DEL of one fails: the others are removed, the error is told, GC again frees it", since: "1.1.0", about: hasIPAM, try: func(t *try) error {
		n := t.net.recorded()
		l, err := t.litter(n)
		if err != nil {
			return err
		}
		if err := t.tell("fail.DEL."+l.lost.id, `{"code":146,"msg":"cannot let go"}`); err != nil {
			return err
		}
		if err := failed(t.gc(n, l.live), nil, "cannot let go"); err != nil {
			return err
		}
		errs := []error{t.linksGone(l), t.order(l), t.kept(l.live)}
		errs = append(errs, t.forget("fail.DEL."+l.lost.id), t.gc(n, l.live))
		if hostLocal(t.net) {
			errs = append(errs, t.freed(l.lost), t.freed(l.stale))
		}
		return errors.Join(errs...)
	}},
	{ID: "GC-15", Kind: Spec, Says: "another network's attachments stay", since: "1.1.0", try: func(t *try) error {
		other, err := t.one(t.net.other())
		if err != nil {
			return err
		}
		if _, err := t.litter(t.net); err != nil {
			return err
		}
		// Whether it takes its own away is for others to say.
		if err := t.gc(t.net); err != nil {
			return err
		}
		return t.kept(other)
	}},
	{ID: "GC-16", Kind: Promise, Says: "somebody else's port on the bridge stays", since: "1.1.0", about: hasOVS, try: func(t *try) error {
		l, err := t.litter(t.net)
		if err != nil {
			return err
		}
		br := l.live.result.Interfaces[0].Name
		if err := t.shell("ip link add foreign0 type veth peer name foreign1; ovs-vsctl --timeout=30 add-port " + br + " foreign0"); err != nil {
			return err
		}
		t.defers(func() error {
			return t.shell("ovs-vsctl --timeout=30 --if-exists del-port foreign0; ip link delete foreign0")
		})
		if err := t.gc(t.net, l.live); err != nil {
			return err
		}
		ports, err := t.ports()
		if err == nil && !slices.Contains(ports, "foreign0") {
			err = errors.New("port foreign0 is gone")
		}
		return errors.Join(err, t.linksGone(l))
	}},
	{ID: "GC-17", Kind: Promise, Says: "GC of everything leaves the host as before the first ADD", since: "1.1.0", try: func(t *try) error {
		var l *litter
		err := t.unchanged(func() error {
			var err error
			if l, err = t.litter(t.net); err != nil {
				return err
			}
			return t.gc(t.net)
		})
		if err != nil {
			return err
		}
		// DEL after GC, and ADD again.
		return errors.Join(t.del(l.stale), t.add(t.net, l.stale), t.del(l.live))
	}},
	{ID: "GC-18", Kind: Spec, Says: "GC on a host without attachments: success, again and again", since: "1.1.0", try: func(t *try) error {
		return t.unchanged(func() error { return errors.Join(t.gc(t.net), t.gc(t.net), t.gc(t.net, nobody())) })
	}},
	{ID: "GC-19", Kind: Promise, Says: "an ADD at work while GC runs that does not know of it is let be", since: "1.1.0", about: hasIPAM, try: func(t *try) error {
		n := t.net.recorded()
		live, err := t.one(n)
		if err != nil {
			return err
		}
		b, err := t.box()
		if err != nil {
			return err
		}
		hold := t.own("hold.ADD")
		if err := syscall.Mkfifo(hold, 0o600); err != nil {
			return err
		}
		fifo, err := os.OpenFile(hold, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer fifo.Close()
		added := make(chan error, 1)
		go func() { added <- t.add(n, b) }()
		// IPAM waits: ADD is half done.
		err = t.until(func() bool { _, err := os.Stat(t.own("held")); return err == nil })
		if err == nil {
			err = t.gc(n, live)
		}
		_, werr := fifo.WriteString("\n")
		if err := errors.Join(err, werr, <-added); err != nil {
			return err
		}
		return errors.Join(t.kept(b), t.kept(live))
	}},
	{ID: "GC-20", Kind: Promise, Says: "GC beside twelve ADDs: all that are valid survive", since: "1.1.0", about: hasIPAM, try: func(t *try) error {
		live, err := t.attached(t.net, 2)
		if err != nil {
			return err
		}
		var coming []*box
		for range 12 {
			b, err := t.box()
			if err != nil {
				return err
			}
			coming = append(coming, b)
		}
		valid := slices.Concat(live, coming)
		added := make(chan error, 1)
		go func() { added <- together(coming, func(b *box) error { return t.add(t.net, b) }) }()
		runs := 0
		for {
			select {
			case err := <-added:
				if err == nil {
					err = t.gc(t.net, valid...)
				}
				if err != nil {
					return err
				}
				t.note = fmt.Sprintf("%d GCs ran meanwhile", runs)
				return errors.Join(distinct(valid), together(valid, t.kept))
			default:
			}
			if err := t.gc(t.net, valid...); err != nil {
				return errors.Join(err, <-added)
			}
			runs++
		}
	}},
	{ID: "GC-21", Kind: Promise, Says: "OVSDB stopped: an error that can be tried again, nothing lost", since: "1.1.0", about: hasOVS, try: func(t *try) error {
		l, err := t.litter(t.net)
		if err != nil {
			return err
		}
		if err := t.broken(t.host.StopOVSDB, t.host.StartOVSDB); err != nil {
			return err
		}
		if err := failed(t.gc(t.net, l.live), code(11), "OVSDB"); err != nil {
			return err
		}
		if err := t.host.StartOVSDB(t.ctx); err != nil {
			return err
		}
		if err := t.gc(t.net, l.live); err != nil {
			return err
		}
		return errors.Join(t.linksGone(l), t.freed(l.lost), t.freed(l.stale), t.kept(l.live))
	}},
}

// order wants IPAM DEL of both, but not of the live one, and GC after them.
func (t *try) order(l *litter) error {
	got, err := t.calls()
	if err != nil {
		return err
	}
	var deleted []string
	swept := false
	for _, r := range got {
		switch r.verb {
		case "DEL":
			if swept {
				return errors.New("IPAM DEL ran after IPAM GC")
			}
			deleted = append(deleted, r.id)
		case "GC":
			swept = true
		}
	}
	slices.Sort(deleted)
	if want := []string{l.lost.id, l.stale.id}; !swept || !slices.Equal(deleted, want) {
		return fmt.Errorf("IPAM DEL ran for %v, want %v; IPAM GC ran: %v", deleted, want, swept)
	}
	return nil
}

// until waits for a condition, a minute at most.
func (t *try) until(f func() bool) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !f(); <-tick.C {
		if time.Now().After(end) {
			return errors.New("it did not come to that")
		}
	}
	return nil
}
