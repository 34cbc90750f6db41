package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// pick are the points of n that a run takes: all of them, or some, spread
// evenly and always the same.
func pick(n, some int) []int {
	if full || n <= some {
		some = n
	}
	var at []int
	for i := range some {
		at = append(at, 1+(2*i+1)*n/(2*some))
	}
	return at
}

// A stage is a lab in which calls are broken: host1 with or without a container
// that stays, and one on host2 to be pinged.
type stage struct {
	*rig
	victim, peer *box
	stay         []*box
	before       cnitest.Snapshot
}

func newStage(t *testing.T, standing bool, n cnitest.Network) *stage {
	t.Helper()
	l := lab(t, 2)
	s := &stage{rig: newRig(l, 0, n)}
	other := newRig(l, 1, n)
	s.peer = other.box(t, "peer")
	if err := other.add(t, s.peer); err != nil {
		t.Fatal(err)
	}
	s.victim = s.box(t, "victim")
	if standing {
		b := s.box(t, "stays")
		if err := s.add(t, b); err != nil {
			t.Fatal(err)
		}
		s.stay = append(s.stay, b)
	}
	s.before = cnitest.MustLook(t, s.h)
	return s
}

// until brings the victim to where the call is made.
func (s *stage) until(t testing.TB, plugin, verb string) error {
	s.victim.prev = ""
	if verb == "DEL" {
		return s.add(t, s.victim)
	}
	if plugin == "route-sync" {
		out, err := s.call(t, "ovs-gre", "ADD", s.victim, nil)
		s.victim.prev = out
		return err
	}
	return nil
}

// clean is what the call does when nothing is in its way.
func (s *stage) clean(t *testing.T, p plan, plugin, verb string) story {
	t.Helper()
	if err := s.until(t, plugin, verb); err != nil {
		t.Fatal(err)
	}
	told, _, err := s.traced(t, p, plugin, verb, s.victim, s.victim.conf())
	if err == nil {
		err = s.del(t, s.victim)
	}
	if err == nil {
		err = s.before.Settled(s.h)
	}
	if err != nil {
		t.Fatalf("%s %s, undisturbed: %v", plugin, verb, err)
	}
	if len(told.Calls) == 0 {
		t.Fatalf("%s %s does nothing", plugin, verb)
	}
	return told
}

// works attaches the victim and takes it off again.
func (s *stage) works(t testing.TB, ping bool) error {
	if err := s.add(t, s.victim); err != nil {
		return fmt.Errorf("again: %w", err)
	}
	err := s.check(t, s.victim)
	if err == nil && ping {
		err = s.ping(s.victim, s.peer)
	}
	return errors.Join(err, s.del(t, s.victim), s.before.Settled(s.h))
}

// changing are the calls that a killed program may have made or not.
var changing = []string{"write", "sendto", "sendmsg", "openat", "mkdirat", "unlinkat", "renameat", "linkat", "flock", "ftruncate", "fchmod", "setns", "connect", "ioctl", "read"}

func TestKill(t *testing.T) {
	suite := count("kill")
	missed := 0
	for _, standing := range []bool{false, true} {
		s := newStage(t, standing, cnitest.Network{})
		where := map[bool]string{false: "bare host", true: "standing network"}[standing]
		for _, c := range []struct {
			plugin, verb string
			some         int
		}{{"ovs-gre", "ADD", 9}, {"ovs-gre", "DEL", 5}, {"route-sync", "ADD", 4}, {"route-sync", "DEL", 3}} {
			told := s.clean(t, plan{Only: changing}, c.plugin, c.verb)
			t.Logf("%s %s, %s: %d points:\n%s", c.plugin, c.verb, where, len(told.Calls), strings.Join(told.Calls, "\n"))
			for i, n := range pick(len(told.Calls), c.some) {
				gc := i%2 == 1 // instead of DEL
				call, hit, err := s.kill(t, n, c.plugin, c.verb, gc, i%10 == 0)
				if err == nil && !hit {
					missed++ // it had less to do than in the clean run
					continue
				}
				name := fmt.Sprintf("%s %s, %s, killed at %d, %s, then GC %t", c.plugin, c.verb, where, n, call, gc)
				if !suite.point(t, name, err) {
					s = newStage(t, standing, cnitest.Network{})
				}
			}
		}
	}
	suite.note("%d points, %d not reached", suite.passed+suite.failed+missed, missed)
	if missed*10 > suite.passed {
		t.Errorf("%d points were not reached", missed)
	}
}

// kill kills a call at its nth point, cleans up by DEL or GC, and tries anew.
func (s *stage) kill(t testing.TB, n int, plugin, verb string, gc, ping bool) (call string, hit bool, err error) {
	if err := s.until(t, plugin, verb); err != nil {
		return "", false, err
	}
	told, _, err := s.traced(t, plan{At: n, Only: changing}, plugin, verb, s.victim, s.victim.conf())
	if told.Hit {
		call = told.Calls[n-1]
		if err == nil {
			return call, true, errors.New("it went on")
		}
	} else if err != nil {
		return "", false, err
	}
	if verb == "ADD" {
		s.victim.prev = "" // the runtime never got it
	}
	if gc && told.Hit {
		err = s.gc(t, s.stay...)
	} else {
		err = s.del(t, s.victim)
	}
	if err == nil {
		err = s.before.Settled(s.h)
	}
	if err == nil && told.Hit {
		err = s.works(t, ping)
	}
	return call, told.Hit, err
}

// errnos are how calls fail.
var errnos = map[string]syscall.Errno{
	"write": syscall.ENOSPC, "sendto": syscall.ENOBUFS, "sendmsg": syscall.ENOMEM, "openat": syscall.EMFILE, "mkdirat": syscall.ENOSPC,
	"unlinkat": syscall.EROFS, "renameat": syscall.EIO, "linkat": syscall.EIO, "flock": syscall.ENOLCK, "ftruncate": syscall.EIO, "fsync": syscall.EIO,
	"fchmod": syscall.EPERM, "setns": syscall.EPERM, "socket": syscall.EMFILE, "bind": syscall.EADDRINUSE, "connect": syscall.ECONNREFUSED, "ioctl": syscall.EPERM,
	"read": syscall.ENOBUFS,
}

// failing are the calls that an error is injected into. In a short run they
// are those that change something.
func failing() plan {
	p := plan{Errno: errnos, Gets: full}
	for name := range errnos {
		if full || name != "read" {
			p.Only = append(p.Only, name)
		}
	}
	return p
}

// TestErrors fails each call of ADD in turn.
func TestErrors(t *testing.T) {
	suite := count("errors")
	missed, survived := 0, 0
	for _, standing := range []bool{false, true} {
		s := newStage(t, standing, cnitest.Network{})
		where := map[bool]string{false: "bare host", true: "standing network"}[standing]
		for _, plugin := range []string{"ovs-gre", "route-sync"} {
			some := map[string]int{"ovs-gre": 24, "route-sync": 8}[plugin]
			told := s.clean(t, failing(), plugin, "ADD")
			t.Logf("%s, %s: %d points:\n%s", plugin, where, len(told.Calls), strings.Join(told.Calls, "\n"))
			for _, n := range pick(len(told.Calls), some) {
				call, hit, failed, err := s.fail(t, n, plugin)
				if !hit {
					missed++
				} else if !failed {
					survived++
					t.Logf("%s ADD, %s, in spite of an error at %d, %s", plugin, where, n, call)
				}
				if err != nil || hit {
					if !suite.point(t, fmt.Sprintf("%s ADD, %s, error at %d, %s", plugin, where, n, call), err) {
						s = newStage(t, standing, cnitest.Network{})
					}
				}
			}
		}
	}
	suite.note("%d not reached, ADD succeeded in spite of %d", missed, survived)
	if missed*10 > suite.passed {
		t.Errorf("%d points were not reached", missed)
	}
}

// fail fails the nth call of ADD.
func (s *stage) fail(t testing.TB, n int, plugin string) (call string, hit, failed bool, err error) {
	if err := s.until(t, plugin, "ADD"); err != nil {
		return "", false, false, err
	}
	before := s.before
	if plugin == "route-sync" {
		if before, err = cnitest.Look(s.h); err != nil {
			return "", false, false, err
		}
	}
	p := failing()
	p.At = n
	told, out, err := s.traced(t, p, plugin, "ADD", s.victim, s.victim.conf())
	if told.Hit {
		call = told.Calls[n-1]
		if strings.HasPrefix(call, "write pipe:") {
			// Its result was for nobody: the runtime's DEL has to follow.
			return call, true, true, errors.Join(s.del(t, s.victim), s.before.Settled(s.h))
		}
	}
	if failed = err != nil; failed {
		if err := sane(err); err != nil {
			return call, told.Hit, failed, err
		}
		if err := before.Settled(s.h); err != nil {
			return call, told.Hit, failed, fmt.Errorf("it failed (%s), and %w", out, err)
		}
	} else {
		if plugin == "ovs-gre" {
			s.victim.prev = out
			if _, err := s.call(t, "route-sync", "ADD", s.victim, s.victim.conf()); err != nil {
				return call, told.Hit, failed, err
			}
		}
		if err := s.check(t, s.victim); err != nil {
			return call, told.Hit, failed, fmt.Errorf("it succeeded, but %w", err)
		}
	}
	return call, told.Hit, failed, errors.Join(s.del(t, s.victim), s.before.Settled(s.h))
}

// slowIPAM is host-local that says that it has begun and then waits for a word.
const slowIPAM = `#!/bin/sh
if [ "$CNI_COMMAND" = ADD ]; then
	echo $$ >/run/ipam.pid
	read word </run/ipam.go
fi
exec /opt/cni/bin/host-local
`

// TestKillInIPAM kills ovs-gre while an IPAM plugin works for it, which goes on
// only after the DEL.
func TestKillInIPAM(t *testing.T) {
	suite := count("kill in IPAM")
	for _, standing := range []bool{false, true} {
		s := newStage(t, standing, cnitest.Network{})
		s.h.WriteFile(t, "/etc/cni/slow-ipam", slowIPAM)
		s.h.Shell(t, "chmod +x /etc/cni/slow-ipam; mkfifo /run/ipam.go")
		conf := cnitest.PluginConf(t, s.list, "ovs-gre", cnitest.Conf{"ipam": cnitest.Conf{"type": "slow-ipam", "subnet": "192.168.1.0/24"}})
		cmd := s.h.Command(context.Background(), "/opt/cni/bin/ovs-gre")
		cmd.Env = append(s.victim.env(), path, cniPath, "CNI_COMMAND=ADD")
		cmd.Stdin = strings.NewReader(conf)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		err := eventually(func() error {
			_, err := s.h.Output(context.Background(), "test", "-s", "/run/ipam.pid")
			return err
		})
		if err == nil {
			err = testnet.Signal(cmd, syscall.SIGKILL)
		}
		if err == nil && cmd.Wait() == nil {
			err = errors.New("it went on")
		}
		_, delErr := cnitest.Plugin(s.h, "ovs-gre", "DEL", conf, append(s.victim.env(), cniPath)...)
		// The word, if somebody still waits for it, and then until it has ended.
		s.h.Shell(t, `p=$(cat /run/ipam.pid); [ ! -e /proc/$p ] || timeout 5 sh -c 'echo go >/run/ipam.go' || :
while [ -e /proc/$p ] && ! grep -q '^State:.Z' /proc/$p/status; do :; done`)
		suite.point(t, fmt.Sprintf("standing network %t", standing), errors.Join(err, delErr, s.before.Settled(s.h)))
	}
}
