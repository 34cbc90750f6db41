package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/test/cnitest"
)

// A wire is what happens to one connection on its way to OVSDB.
type wire func(client, server net.Conn)

// fake serves, at a path that it returns as the host sees it, connections to
// the host's OVSDB by way of w.
func (s *stage) fake(t *testing.T, w wire) string {
	t.Helper()
	const seen = "/etc/cni/fake.sock"
	path := s.h.Dir + seen
	_ = os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", "/proc/"+strconv.Itoa(s.h.PID())+"/root/run/openvswitch/db.sock")
			if err != nil {
				client.Close()
				continue
			}
			mu.Lock()
			open = append(open, client, server)
			mu.Unlock()
			all.Go(func() {
				w(client, server)
				client.Close()
				server.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return "unix:" + seen
}

// through passes requests on and hands each reply to f, with its number from 1
// on; f returns whether to go on.
func through(f func(client net.Conn, n int, reply []byte) bool) wire {
	return func(client, server net.Conn) {
		go func() { _, _ = io.Copy(server, client); server.Close() }()
		dec := json.NewDecoder(server)
		for n := 1; ; n++ {
			var reply json.RawMessage
			if dec.Decode(&reply) != nil || !f(client, n, reply) {
				return
			}
		}
	}
}

// hold keeps a connection that says nothing until the client goes.
func hold(client net.Conn) { _, _ = io.Copy(io.Discard, client) }

// cut sends half of the nth reply and then either hangs up or falls silent.
func cut(nth int, silent bool) wire {
	return through(func(client net.Conn, n int, reply []byte) bool {
		if n < nth {
			_, err := client.Write(reply)
			return err == nil
		}
		_, _ = client.Write(reply[:len(reply)/2])
		if silent {
			hold(client)
		}
		return false
	})
}

// says sends bytes for ever or once, whatever it is asked.
func says(text string, forever bool) wire {
	return func(client, _ net.Conn) {
		go hold(client)
		for {
			if _, err := io.WriteString(client, text); err != nil || !forever {
				break
			}
		}
		hold(client)
	}
}

// answers every request with the same result and error.
func answers(result, problem string) wire {
	return func(client, _ net.Conn) {
		for dec := json.NewDecoder(client); ; {
			var m struct {
				ID json.RawMessage `json:"id"`
			}
			if dec.Decode(&m) != nil {
				return
			}
			fmt.Fprintf(client, `{"id":%s,"result":%s,"error":%s}`, m.ID, result, problem)
		}
	}
}

// slow waits before each reply.
func slow(by time.Duration) wire {
	return through(func(client net.Conn, _ int, reply []byte) bool {
		time.Sleep(by) //nolint:forbidigo // it is what this wire is for
		_, err := client.Write(reply)
		return err == nil
	})
}

// TestSockets gives ADD and the other verbs an OVSDB that misbehaves.
func TestSockets(t *testing.T) {
	suite := count("OVSDB sockets")
	const timeout = 1
	type socket struct {
		name  string
		w     wire
		works bool // ADD succeeds in spite of it
	}
	sockets := []socket{
		{"never answers", func(client, _ net.Conn) { hold(client) }, false},
		{"hangs up", func(net.Conn, net.Conn) {}, false},
		{"garbage", says("\x00\xff\x1b[31mgarbage\r\n", false), false},
		{"garbage without end", says("garbage ", true), false},
		{"blanks without end", says(strings.Repeat(" ", 4096), true), false},
		{"brackets without end", says(strings.Repeat("[", 4096), true), false},
		{"one string without end", says(strings.Repeat(`"`, 1)+strings.Repeat("x", 4096), true), false},
		{"an endless greeting", says(`{"id":"echo","method":"echo","params":[]}`, true), false},
		{"HTTP", says("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", false), false},
		{"result null", answers("null", "null"), false},
		{"result empty", answers("[]", "null"), false},
		{"result a number", answers("42", "null"), false},
		{"results null", answers("[null,null,null,null,null,null]", "null"), false},
		{"results empty", answers("[{},{},{},{},{},{}]", "null"), false},
		{"rows of nonsense", answers(`[{"rows":[{"_uuid":7,"name":{},"external_ids":["map",[["a"]]],"ports":["set",[[["uuid"]]]]}]},{"rows":[null]},{"rows":[[]]}]`, "null"), false},
		{"an error", answers("null", `"I\u001b[31m am\nbroken"`), false},
		{"slow", slow(150 * time.Millisecond), true},
		{"too slow", slow(700 * time.Millisecond), false},
	}
	for n := 1; n <= 6; n++ {
		if full || n%3 == 1 {
			sockets = append(sockets, socket{fmt.Sprintf("half of reply %d, then hangs up", n), cut(n, false), false},
				socket{fmt.Sprintf("half of reply %d, then silent", n), cut(n, true), false})
		}
	}
	for _, standing := range []bool{false, true} {
		var s *stage
		for i, k := range sockets {
			if !full && standing == (i%2 == 0) && !strings.HasPrefix(k.name, "half") {
				continue
			}
			if s == nil {
				s = newStage(t, standing, cnitest.Network{})
			}
			name := map[bool]string{false: "bare host: ", true: "standing network: "}[standing] + k.name
			took, err := s.socket(t, k.w, k.works, timeout)
			t.Logf("%s: ADD took %v", name, took.Round(time.Millisecond))
			if !suite.point(t, name, err) {
				s = nil
			}
		}
	}
}

func (s *stage) socket(t *testing.T, w wire, works bool, timeout int) (took time.Duration, err error) {
	more := cnitest.Conf{"ovsdb": s.fake(t, w), "timeoutSeconds": timeout}
	if works {
		more["timeoutSeconds"] = 30
	}
	begin := time.Now()
	out, err := s.call(t, "ovs-gre", "ADD", s.victim, more)
	took = time.Since(begin)
	// Undoing has a bound of its own.
	if bound := time.Duration(timeout)*time.Second + 8*time.Second; took > bound && !works {
		return took, fmt.Errorf("it took %v", took)
	}
	if works {
		if err != nil {
			return took, err
		}
		s.victim.prev = out
		if _, err := s.call(t, "route-sync", "ADD", s.victim, s.victim.conf()); err != nil {
			return took, err
		}
		return took, errors.Join(s.check(t, s.victim), s.del(t, s.victim), s.before.Settled(s.h))
	}
	// With half a reply cut off late ADD may have had all that it needed.
	if err != nil {
		if err := wantError(err, types.ErrTryAgainLater, "OVS"); err != nil {
			return took, err
		}
		t.Logf("    %s", oneLine(err))
	} else if s.victim.prev = out; !strings.Contains(out, `"ips"`) {
		return took, fmt.Errorf("it succeeded with %q", out)
	}
	// The other verbs end as well, and in a way that a runtime understands.
	for _, verb := range []string{"STATUS", "GC", "DEL"} {
		extra := cnitest.Conf{"ovsdb": more["ovsdb"], "timeoutSeconds": timeout}
		b := s.victim
		if verb == "GC" {
			extra["cni.dev/valid-attachments"] = []cnitest.Conf{}
			if len(s.stay) > 0 {
				extra["cni.dev/valid-attachments"] = []cnitest.Conf{{"containerID": s.stay[0].id, "ifname": s.stay[0].ifname}}
			}
		}
		begin := time.Now()
		_, err := s.call(t, "ovs-gre", verb, b, extra)
		if d := time.Since(begin); d > delBound {
			return took, fmt.Errorf("%s took %v", verb, d)
		}
		if err := sane(err); err != nil {
			return took, fmt.Errorf("%s: %w", verb, err)
		}
		if verb == "DEL" && err != nil {
			return took, fmt.Errorf("DEL: %w", err)
		}
	}
	// Back at the real one, by its name: what DEL's configuration does not say
	// is made up for by the one that ADD went by.
	if _, err := s.call(t, "ovs-gre", "DEL", s.victim, cnitest.Conf{"ovsdb": "unix:" + config.DefaultOVSDB}); err != nil {
		return took, err
	}
	if err := s.del(t, s.victim); err != nil {
		return took, err
	}
	s.victim.prev = ""
	return took, s.before.Settled(s.h)
}

func oneLine(err error) string {
	return string(bytes.ReplaceAll([]byte(err.Error()), []byte("\n"), []byte("; ")))
}

// TestRestarts ends daemons while ADD waits for them.
func TestRestarts(t *testing.T) {
	suite := count("OVS restarts")
	for _, standing := range []bool{false, true} {
		var s *stage
		// What an ADD has in OVSDB when it waits for ovs-vswitchd.
		row := map[bool]string{false: `Bridge.*name="obr0"`, true: `Port.*"ovs-gre.container-id","victim"`}[standing]
		for _, c := range []struct {
			name    string
			restart func(*stage) error
			may     bool // ADD may fail
		}{
			{"ovs-vswitchd killed and started", func(s *stage) error { return steps(s.h.KillVswitchd, s.h.StartVswitchd) }, false},
			{"ovsdb-server killed and started", func(s *stage) error { return steps(s.h.KillOVSDB, s.h.StartOVSDB, s.h.ResumeVswitchd) }, true},
			{"ovsdb-server stopped and started", func(s *stage) error { return steps(s.h.StopOVSDB, s.h.StartOVSDB, s.h.ResumeVswitchd) }, true},
			{"both killed and started", func(s *stage) error { return steps(s.h.KillVswitchd, s.h.KillOVSDB, s.h.StartOVS) }, true},
		} {
			if s == nil {
				s = newStage(t, standing, cnitest.Network{})
			}
			err := steps(s.h.PauseVswitchd)
			if err != nil {
				t.Fatal(err)
			}
			got, begin := make(chan error, 1), time.Now()
			go func() { got <- s.add(t, s.victim) }()
			err = eventually(func() error { return s.has(map[string]int{row: 1}) })
			err = errors.Join(err, c.restart(s))
			// ADD takes an ovs-vswitchd for dead that stands still for a second,
			// which it has done where this machine is slow.
			slow := time.Since(begin) > time.Second
			added := <-got
			switch {
			case err != nil:
			case added == nil:
				err = eventually(func() error { return s.check(t, s.victim) })
				if err == nil {
					err = s.ping(s.victim, s.peer)
				}
			case !c.may && slow:
				t.Logf("%s: %s", c.name, oneLine(added))
				err = wantError(added, types.ErrTryAgainLater, "does not answer")
			case !c.may:
				err = added
			default:
				t.Logf("%s: %s", c.name, oneLine(added))
				err = wantError(added, types.ErrTryAgainLater, "OVSDB")
			}
			// A runtime calls DEL in either case.
			err = errors.Join(err, s.del(t, s.victim), s.before.Settled(s.h))
			for _, b := range s.stay {
				err = errors.Join(err, eventually(func() error { return s.check(t, b) }))
				if err == nil {
					err = s.ping(b, s.peer)
				}
			}
			name := map[bool]string{false: "bare host: ", true: "standing network: "}[standing] + c.name
			if !suite.point(t, name, err) {
				s = nil
			}
		}
		if standing && s != nil {
			suite.point(t, "ovs-vswitchd stopped and started, traffic goes on", errors.Join(
				steps(s.h.StopVswitchd, s.h.StartVswitchd), s.ping(s.stay[0], s.peer), s.check(t, s.stay[0])))
			suite.point(t, "ovs-vswitchd killed and started, traffic goes on", errors.Join(
				steps(s.h.KillVswitchd, s.h.StartVswitchd), s.ping(s.stay[0], s.peer), s.check(t, s.stay[0])))
		}
	}
}
