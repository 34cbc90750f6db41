package faults

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ovs-gre-cni/test/cnitest"
)

// many are the containers that come at once.
const many = 50

// atOnce calls f for 0 to n-1 at the same time.
func atOnce(n int, f func(i int) error) error {
	errs := make([]error, n)
	var start, done sync.WaitGroup
	start.Add(1)
	for i := range n {
		done.Go(func() {
			start.Wait()
			errs[i] = f(i)
		})
	}
	start.Done()
	done.Wait()
	return errors.Join(errs...)
}

// TestAtOnce brings and takes many containers at once, on a bare host.
func TestAtOnce(t *testing.T) {
	suite := count("at once")
	s := newStage(t, false, cnitest.Network{})
	var boxes []*box
	for i := range many {
		boxes = append(boxes, s.box(t, fmt.Sprintf("c%d", i)))
	}
	before := cnitest.MustLook(t, s.h)
	begin := time.Now()
	err := atOnce(many, func(i int) error { return s.add(t, boxes[i]) })
	added := time.Since(begin)
	if !suite.point(t, "ADD", err) {
		return
	}
	suite.point(t, "addresses", distinct(boxes))
	suite.point(t, "one bridge, one tunnel", s.has(map[string]int{`Bridge.*name="obr0"`: 1, `Interface.*type="gre"`: 1, `Interface.*"ovs-gre.role","container"`: many}))
	_ = atOnce(many, func(i int) error {
		b := boxes[i]
		suite.point(t, "CHECK "+b.id, s.check(t, b))
		if i%10 == 0 {
			suite.point(t, "ping from "+b.id, s.ping(b, s.peer))
		}
		return nil
	})
	begin = time.Now()
	err = atOnce(many, func(i int) error { return s.del(t, boxes[i]) })
	suite.note("%d ADDs in %v, %d DELs in %v", many, added.Round(time.Millisecond), many, time.Since(begin).Round(time.Millisecond))
	suite.point(t, "DEL", err)
	suite.point(t, "nothing left", before.Settled(s.h))
}

// distinct insists on addresses that no two containers share.
func distinct(boxes []*box) error {
	seen := map[netip.Addr]string{}
	for _, b := range boxes {
		res, err := b.result()
		if err != nil {
			return err
		}
		if len(res.IPs) != 2 {
			return fmt.Errorf("%s has the addresses %v", b.id, res.IPs)
		}
		for _, ip := range res.IPs {
			a, _ := addrOf(ip)
			if other, ok := seen[a]; ok {
				return fmt.Errorf("%s and %s both have %s", b.id, other, a)
			}
			seen[a] = b.id
		}
	}
	return nil
}

// has counts OVSDB's rows by pieces of their text, which ".*" joins.
func (s *stage) has(want map[string]int) error {
	snap, err := cnitest.Look(s.h)
	if err != nil {
		return err
	}
	var errs []error
	for pattern, n := range want {
		got := 0
		for _, row := range snap["ovsdb"] {
			all := true
			for piece := range strings.SplitSeq(pattern, ".*") {
				all = all && strings.Contains(row, piece)
			}
			if all {
				got++
			}
		}
		if got != n {
			errs = append(errs, fmt.Errorf("%d rows %s, want %d", got, pattern, n))
		}
	}
	return errors.Join(errs...)
}

// TestBeside has containers come and go beside GC, while one stays.
func TestBeside(t *testing.T) {
	suite := count("beside GC")
	s := newStage(t, true, cnitest.Network{})
	const workers = 6
	rounds := 4
	if full {
		rounds = 25
	}
	all := append([]*box(nil), s.stay...)
	for i := range workers {
		all = append(all, s.box(t, fmt.Sprintf("w%d", i)))
	}
	s.before = cnitest.MustLook(t, s.h)
	stop := make(chan struct{})
	var collector sync.WaitGroup
	var collected atomic.Int32
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			suite.point(t, "GC", s.gc(t, all...))
			collected.Add(1)
		}
	})
	_ = atOnce(workers, func(i int) error {
		b := all[i+1]
		for r := range rounds {
			suite.point(t, fmt.Sprintf("%s, round %d", b.id, r), errors.Join(s.add(t, b), s.check(t, b), s.del(t, b)))
		}
		return nil
	})
	close(stop)
	collector.Wait()
	suite.note("%d GCs", collected.Load())
	suite.point(t, "the container that stays", errors.Join(s.check(t, s.stay[0]), s.ping(s.stay[0], s.peer)))
	suite.point(t, "nothing left", s.before.Settled(s.h))
}

// TestInFlight calls GC, for which no container is valid, while an ADD is on
// its way: the ADD keeps all that it has, or fails and has nothing. Which of
// them ends first is left to chance.
func TestInFlight(t *testing.T) {
	suite := count("GC of ADDs in flight")
	s := newStage(t, true, cnitest.Network{})
	rounds := 8
	if full {
		rounds = 40
	}
	for r := range rounds {
		// ovs-vswitchd stands still, so that the ADD cannot end before GC does.
		if err := s.h.PauseVswitchd(context.Background()); err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() { got <- s.add(t, s.victim) }()
		err := eventually(func() error { return s.has(map[string]int{`Port.*"ovs-gre.container-id","victim"`: 1}) })
		if err == nil {
			err = s.gc(t, s.stay...)
		}
		err = errors.Join(err, s.h.ResumeVswitchd(context.Background()), <-got)
		if err == nil {
			err = s.check(t, s.victim)
		}
		if !suite.point(t, fmt.Sprintf("round %d", r), errors.Join(err, s.del(t, s.victim), s.before.Settled(s.h))) {
			return
		}
	}
}

// TestLastAndFirst takes the last container off while the first one comes.
func TestLastAndFirst(t *testing.T) {
	suite := count("last and first")
	s := newStage(t, false, cnitest.Network{})
	other := s.box(t, "other")
	before := cnitest.MustLook(t, s.h)
	rounds := 12
	if full {
		rounds = 100
	}
	if err := s.add(t, s.victim); err != nil {
		t.Fatal(err)
	}
	last, first := s.victim, other
	for r := range rounds {
		err := atOnce(2, func(i int) error {
			if i == 0 {
				return s.del(t, last)
			}
			return s.add(t, first)
		})
		if err == nil {
			err = s.check(t, first)
		}
		if err == nil && r%6 == 0 {
			err = s.ping(first, s.peer)
		}
		if !suite.point(t, fmt.Sprintf("round %d", r), err) {
			return
		}
		last, first = first, last
	}
	suite.point(t, "nothing left", errors.Join(s.del(t, last), before.Settled(s.h)))
}

// TestTwoNetworks attaches one container to two networks at once.
func TestTwoNetworks(t *testing.T) {
	suite := count("two networks at once")
	l := lab(t, 2)
	a := newRig(l, 0, cnitest.Network{})
	b := newRig(l, 0, cnitest.Network{Name: "second", Subnets: func(i int) []string { return []string{fmt.Sprintf("10.20.%d.0/24", i), fmt.Sprintf("fd20:%d::/64", i)} },
		OVSGRE: cnitest.Conf{"bridge": "obr1", "tunnel": cnitest.Conf{"type": "gre", "key": 7}, "isDefaultGateway": false}})
	one := a.box(t, "both")
	two := &box{id: one.id, ifname: "eth1", netns: one.netns}
	before := cnitest.MustLook(t, a.h)
	rounds := 6
	if full {
		rounds = 40
	}
	for r := range rounds {
		each := func(f func(*rig, *box) error) error {
			return atOnce(2, func(i int) error {
				if i == 0 {
					return f(a, one)
				}
				return f(b, two)
			})
		}
		err := each(func(r *rig, b *box) error { return r.add(t, b) })
		if err == nil {
			err = each(func(r *rig, b *box) error { return r.check(t, b) })
		}
		err = errors.Join(err, each(func(r *rig, b *box) error { return r.del(t, b) }), before.Settled(a.h))
		if !suite.point(t, fmt.Sprintf("round %d", r), err) {
			return
		}
	}
}
