package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"ovs-gre-cni/test/cnitest"
)

// TestSoak attaches and takes off containers, many at a time, kills some of the
// calls wherever they happen to be, and cleans up after those by DEL, or leaves
// them to a GC. OVSGRE_SOAK is how many.
func TestSoak(t *testing.T) {
	suite := count("soak")
	total := 100
	if text := os.Getenv("OVSGRE_SOAK"); text != "" {
		var err error
		if total, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	const workers = 20
	s := newStage(t, true, cnitest.Network{})
	boxes := make([]*box, workers)
	for i := range boxes {
		boxes[i] = s.box(t, fmt.Sprintf("s%d", i))
	}
	s.before = cnitest.MustLook(t, s.h)
	const seed = 20
	t.Logf("seed %d", seed)
	begin := time.Now()
	var next, killed, collected atomic.Int32
	_ = atOnce(workers, func(w int) error {
		random := rand.New(rand.NewPCG(seed, uint64(w)))
		for n := int(next.Add(1)); n <= total; n = int(next.Add(1)) {
			b := boxes[w]
			suite.point(t, fmt.Sprintf("%d (%s)", n, b.id), s.soak(t, b, boxes, random, &killed, &collected))
		}
		return nil
	})
	suite.note("%d attachments at a concurrency of %d in %v, %d calls killed, %d left to GC", total, workers, time.Since(begin).Round(time.Second), killed.Load(), collected.Load())
	if killed.Load() == 0 {
		t.Error("nothing was killed")
	}
	suite.point(t, "the container that stays", errors.Join(s.check(t, s.stay[0]), s.ping(s.stay[0], s.peer)))
	suite.point(t, "nothing left", s.before.Settled(s.h))
}

// soak attaches one container and takes it off.
func (s *stage) soak(t *testing.T, b *box, all []*box, random *rand.Rand, killed, collected *atomic.Int32) error {
	b.prev = ""
	verb, plugin := "ADD", "ovs-gre"
	dice := random.IntN(10)
	switch {
	case dice >= 4: // undisturbed
		return errors.Join(s.add(t, b), s.check(t, b), s.del(t, b))
	case dice == 3:
		plugin = "route-sync"
	case dice == 2:
		verb = "DEL"
	}
	mine := *s // until is the victim's
	mine.victim = b
	if err := mine.until(t, plugin, verb); err != nil {
		return err
	}
	told, _, err := s.traced(t, plan{At: 1 + random.IntN(45), Only: changing}, plugin, verb, b, b.conf())
	if told.Hit {
		killed.Add(1)
	} else if err != nil {
		return err
	}
	if verb == "ADD" {
		b.prev = ""
	}
	if told.Hit && random.IntN(2) == 0 {
		// The runtime knows of all others, but not of this one.
		collected.Add(1)
		valid := append([]*box(nil), s.stay...)
		for _, other := range all {
			if other != b {
				valid = append(valid, other)
			}
		}
		return s.gc(t, valid...)
	}
	return s.del(t, b)
}
