package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

func TestMain(m *testing.M) {
	if raw := os.Getenv(traceEnv); raw != "" {
		os.Exit(traceMain(raw, os.Args[1:]))
	}
	code := m.Run()
	for _, s := range suites {
		fmt.Println(s)
		if s.failed > 0 && code == 0 {
			code = 1
		}
	}
	os.Exit(code)
}

// full: every point, not a sample.
var full = os.Getenv("OVSGRE_FAULTS") == "full"

// A suite counts points.
type suite struct {
	name           string
	mu             sync.Mutex
	passed, failed int
	notes          []string
}

var suites []*suite

// count begins a suite.
func count(name string) *suite {
	s := &suite{name: name}
	suites = append(suites, s)
	return s
}

// point counts one point; its error fails the test.
func (s *suite) point(t testing.TB, name string, err error) bool {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed++
		t.Errorf("%s: %s: %v", s.name, name, err)
		return false
	}
	s.passed++
	return true
}

// note adds to the suite's line.
func (s *suite) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

func (s *suite) String() string {
	text := fmt.Sprintf("faults: %s: %d passed, %d failed", s.name, s.passed, s.failed)
	if len(s.notes) > 0 {
		text += " (" + strings.Join(s.notes, ", ") + ")"
	}
	return text
}

// A rig is a network on a host, called as a runtime does.
type rig struct {
	h    *testnet.Host
	name string
	// list is the conflist.
	list string
}

// A box is a container's attachment.
type box struct {
	id, ifname, netns string
	prev              string // the result of ADD
}

func (b *box) env() []string {
	return []string{"CNI_CONTAINERID=" + b.id, "CNI_IFNAME=" + b.ifname, "CNI_NETNS=" + b.netns}
}

// lab starts n hosts with the binaries.
func lab(t testing.TB, n int) *testnet.Lab {
	t.Helper()
	return testnet.New(t, testnet.Options{Hosts: n, PluginDir: cnitest.BinDir(t)})
}

func newRig(l *testnet.Lab, i int, n cnitest.Network) *rig {
	if _, ok := n.OVSGRE["ipMasq"]; !ok {
		if n.OVSGRE == nil {
			n.OVSGRE = cnitest.Conf{}
		}
		n.OVSGRE["ipMasq"] = true // so that there is an nftables table to be left
	}
	return &rig{h: l.Hosts[i], name: n.NetworkName(), list: n.Conflist(l)}
}

// box makes a namespace and names a container for it.
func (r *rig) box(t testing.TB, name string) *box {
	t.Helper()
	return &box{id: name, ifname: "eth0", netns: r.h.NewNetns(t, name).Path}
}

const path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"

// call calls one plugin; more are keys for its configuration. A nil box is
// none. The error is a *types.Error where the plugin printed one.
func (r *rig) call(t testing.TB, plugin, verb string, b *box, more cnitest.Conf) (string, error) {
	t.Helper()
	var env []string
	if b != nil {
		env = b.env()
	}
	return cnitest.Plugin(r.h, plugin, verb, cnitest.PluginConf(t, r.list, plugin, more), env...)
}

// traced is call under a plan.
func (r *rig) traced(t testing.TB, p plan, plugin, verb string, b *box, more cnitest.Conf) (story, string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.CreateTemp("", "faults-")
	if err != nil {
		t.Fatal(err)
	}
	out.Close()
	t.Cleanup(func() { _ = os.Remove(out.Name()) })
	p.Out = out.Name()
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := r.h.Command(ctx, self, "/opt/cni/bin/"+plugin)
	cmd.Env = append([]string{path, "CNI_PATH=/opt/cni/bin", "CNI_COMMAND=" + verb, traceEnv + "=" + string(raw)}, b.env()...)
	cmd.Stdin = strings.NewReader(cnitest.PluginConf(t, r.list, plugin, more))
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	runErr := cmd.Run()
	var s story
	data, err := os.ReadFile(out.Name())
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		t.Fatalf("the tracer told nothing: %v: %v: %s%s", err, runErr, stdout.String(), stderr.String())
	}
	if runErr != nil {
		var e types.Error
		if json.Unmarshal([]byte(stdout.String()), &e) == nil && e.Msg != "" {
			return s, stdout.String(), &e
		}
		return s, stdout.String(), fmt.Errorf("%w: %s%s", runErr, stdout.String(), stderr.String())
	}
	return s, stdout.String(), nil
}

// prev is the key prevResult, if the box has one.
func (b *box) conf() cnitest.Conf {
	if b.prev == "" {
		return nil
	}
	return cnitest.Conf{"prevResult": json.RawMessage(b.prev)}
}

// add calls ADD of the chain.
func (r *rig) add(t testing.TB, b *box) error {
	t.Helper()
	b.prev = ""
	out, err := r.call(t, "ovs-gre", "ADD", b, nil)
	if err != nil {
		return fmt.Errorf("ovs-gre: ADD: %w", err)
	}
	b.prev = out
	if _, err := r.call(t, "route-sync", "ADD", b, b.conf()); err != nil {
		return fmt.Errorf("route-sync: ADD: %w", err)
	}
	return nil
}

// del calls DEL of the chain, the last plugin first.
func (r *rig) del(t testing.TB, b *box) error {
	t.Helper()
	var errs []error
	for _, p := range []string{"route-sync", "ovs-gre"} {
		if _, err := r.call(t, p, "DEL", b, b.conf()); err != nil {
			errs = append(errs, fmt.Errorf("%s: DEL: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// gc calls GC of the chain.
func (r *rig) gc(t testing.TB, valid ...*box) error {
	t.Helper()
	list := []cnitest.Conf{}
	for _, b := range valid {
		list = append(list, cnitest.Conf{"containerID": b.id, "ifname": b.ifname})
	}
	var errs []error
	for _, p := range []string{"ovs-gre", "route-sync"} {
		if _, err := r.call(t, p, "GC", nil, cnitest.Conf{"cni.dev/valid-attachments": list}); err != nil {
			errs = append(errs, fmt.Errorf("%s: GC: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

func (r *rig) check(t testing.TB, b *box) error {
	t.Helper()
	for _, p := range []string{"ovs-gre", "route-sync"} {
		if _, err := r.call(t, p, "CHECK", b, b.conf()); err != nil {
			return fmt.Errorf("%s: CHECK: %w", p, err)
		}
	}
	return nil
}

// addrs are the addresses that ADD gave.
func (b *box) result() (*current.Result, error) {
	res := &current.Result{}
	return res, json.Unmarshal([]byte(b.prev), res)
}

// ping pings b, on whatever host it is, from a's namespace.
func (r *rig) ping(a, b *box) error {
	res, err := b.result()
	if err != nil {
		return err
	}
	from := &testnet.Netns{Name: filepath.Base(a.netns), Path: a.netns, Host: r.h}
	for _, ip := range res.IPs {
		to, ok := addrOf(ip)
		if !ok {
			return fmt.Errorf("no address in %v", ip)
		}
		if err := eventually(func() error { return testnet.Ping(context.Background(), from, to, testnet.PingOptions{}) }); err != nil {
			return err
		}
	}
	return nil
}

// sane looks at how a plugin failed: a CNI error with a code that we give and
// one line of text.
func sane(err error) error {
	if err == nil {
		return nil
	}
	var e *types.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("it printed no CNI error: %w", err)
	}
	codes := []uint{types.ErrUnsupportedField, types.ErrInvalidEnvironmentVariables, types.ErrIOFailure, types.ErrDecodingFailure,
		types.ErrInvalidNetworkConfig, types.ErrInvalidNetNS, types.ErrTryAgainLater, types.ErrPluginNotAvailable, types.ErrLimitedConnectivity, 100, 101, 102}
	if !slices.Contains(codes, e.Code) {
		return fmt.Errorf("code %d: %w", e.Code, err)
	}
	text := e.Msg + e.Details
	if e.Msg == "" || strings.ContainsAny(e.Msg, "\n\r\x1b") || strings.Contains(text, "panic") || strings.Contains(text, "goroutine ") || strings.Contains(text, "<nil>") || strings.Contains(text, "%!") {
		return fmt.Errorf("message %q, details %q", e.Msg, e.Details)
	}
	return nil
}

// code insists on a CNI error of that code whose message has all the words.
func wantError(err error, code uint, words ...string) error {
	if err == nil {
		return errors.New("no error")
	}
	if err := sane(err); err != nil {
		return err
	}
	var e *types.Error
	errors.As(err, &e)
	if e.Code != code {
		return fmt.Errorf("code %d, want %d: %s", e.Code, code, e.Msg)
	}
	for _, w := range words {
		if !strings.Contains(e.Msg, w) {
			return fmt.Errorf("no %q in %q", w, e.Msg)
		}
	}
	return nil
}

// eventually calls f until it returns nil, for some seconds.
func eventually(f func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); ; <-tick.C {
		err := f()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

func addrOf(ip *current.IPConfig) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip.Address.IP)
	return a.Unmap(), ok
}
