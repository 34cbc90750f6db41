package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ovs-gre-cni/pkg/testnet"
)

// A Kind says who wants a clause.
type Kind string

const (
	// Spec: the specification says must or should.
	Spec Kind = "S"
	// Library: what plugins made with containernetworking's library do, and
	// runtimes so expect.
	Library Kind = "L"
	// Promise: what ovs-gre and route-sync promise beyond that.
	Promise Kind = "P"
)

// A Clause is one thing that a plugin must do.
type Clause struct {
	ID   string
	Kind Kind
	// Says is the clause in plain words.
	Says string

	// since and until are the versions that it is about; "" is no limit.
	since, until string
	// about tells the chains that it is about; nil is all.
	about func(network) bool
	try   func(*try) error
}

// Options of a run.
type Options struct {
	// Versions are what is tried; nil means Versions.
	Versions []string
	// Only are the clauses or kinds that are tried, by ID or the beginning of
	// it; nil means all.
	Only []string
	// Progress gets each outcome as it comes; nil throws it away.
	Progress func(version string, c Clause, o Outcome)
}

// An Outcome is what came of a clause in one version.
type Outcome struct {
	// Tried is false where the clause is not about the version or chain.
	Tried bool
	// Err says how the clause failed; nil means that it passed.
	Err error
	// Note is a figure to be reported; "" is none.
	Note string
	Took time.Duration
}

// Run holds a chain against all clauses, each version on a host of its own.
// The error is about the lab; clauses that fail are in the report.
func Run(ctx context.Context, chain Chain, o Options) (*Report, error) {
	name, plugins, err := chain.parse()
	if err != nil {
		return nil, err
	}
	if chain.Name == "" {
		chain.Name = name
	}
	versions := o.Versions
	if versions == nil {
		versions = Versions
	}
	list := slices.DeleteFunc(slices.Clone(clauses), func(c Clause) bool { return !o.wants(c) })
	r := &Report{Chain: chain.Name, Versions: versions, Lines: make([]Line, len(list))}
	for i, c := range list {
		r.Lines[i] = Line{Clause: c, Outcomes: map[string]Outcome{}}
	}
	var mu sync.Mutex
	errs := make([]error, len(versions))
	var wg sync.WaitGroup
	for v, version := range versions {
		wg.Go(func() {
			errs[v] = runVersion(ctx, chain, network{version, name, plugins}, list, func(i int, out Outcome) {
				mu.Lock()
				defer mu.Unlock()
				r.Lines[i].Outcomes[version] = out
				if o.Progress != nil {
					o.Progress(version, list[i], out)
				}
			})
			if errs[v] != nil {
				errs[v] = fmt.Errorf("version %s: %w", version, errs[v])
			}
		})
	}
	wg.Wait()
	return r, errors.Join(errs...)
}

func (o Options) wants(c Clause) bool {
	return len(o.Only) == 0 || slices.ContainsFunc(o.Only, func(s string) bool {
		return s == string(c.Kind) || s == c.ID || strings.HasPrefix(c.ID, s+"-")
	})
}

// runVersion goes through the clauses on one host.
func runVersion(ctx context.Context, chain Chain, n network, list []Clause, report func(int, Outcome)) (err error) {
	ovs := n.index("ovs-gre") >= 0
	lab, err := testnet.Start(ctx, testnet.Options{Hosts: 1, PluginDir: chain.Bin, NoOVS: !ovs})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	if lab.Datapath == testnet.DatapathNetdev {
		n = n.edit(func(_ int, c conf) {
			if c.typ() == "ovs-gre" {
				c["datapathType"] = lab.Datapath
			}
		})
	}
	h := &rig{host: lab.Hosts[0], chain: chain, net: n, ovs: ovs}
	if err := h.furnish(); err != nil {
		return err
	}
	if err := h.ready(ctx); err != nil {
		return err
	}
	for i, c := range list {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		out := Outcome{Tried: (c.since == "" || atLeast(n.version, c.since)) && (c.until == "" || atLeast(c.until, n.version)) && (c.about == nil || c.about(n))}
		if out.Tried {
			begin := time.Now()
			out.Note, out.Err = h.try(ctx, i, c)
			out.Took = time.Since(begin)
			if out.Err != nil {
				// Whatever a failure has left must not fail the next clause.
				if err := h.reset(ctx); err != nil {
					return fmt.Errorf("after %s: %w", c.ID, err)
				}
			}
		}
		report(i, out)
	}
	return nil
}

// A rig is a host and the chain on it.
type rig struct {
	host  *testnet.Host
	chain Chain
	net   network
	ovs   bool

	mu   sync.Mutex
	seen []answer
}

// netnsDir is where network namespaces are.
const netnsDir = "/var/run/netns/"

// furnish puts the recorder and the tools onto the host's disk.
func (h *rig) furnish() error {
	own := filepath.Join(h.host.Dir, ownDir)
	if err := os.MkdirAll(own+"/tools", 0o755); err != nil {
		return err
	}
	errs := []error{
		os.WriteFile(own+"/"+recorder, []byte(recorderScript), 0o755),
		os.WriteFile(own+"/real", []byte(h.net.plugins[0].ipam().str("type")), 0o644),
	}
	for _, tool := range tools {
		raw, err := os.ReadFile(filepath.Join(h.chain.Tools, tool))
		if err == nil {
			err = os.WriteFile(own+"/tools/"+tool, raw, 0o755)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ready prepares the host after a boot: what the first container of a network
// changes for good, such as a bridge that stays, is there before the clauses.
func (h *rig) ready(ctx context.Context) error {
	if h.chain.Setup != "" {
		if _, err := h.host.Output(ctx, "sh", "-ec", h.chain.Setup); err != nil {
			return fmt.Errorf("setup: %w", err)
		}
	}
	t := &try{ctx: ctx, rig: h, prefix: "warm"}
	b, err := t.box()
	if err != nil {
		return err
	}
	// Whether ADD works at all is for the clauses to say.
	_ = t.add(h.net, b)
	_ = t.cleanup()
	return nil
}

// reset boots the host anew with empty disks.
func (h *rig) reset(ctx context.Context) error {
	if h.ovs {
		// Dead daemons would not come back with the boot.
		if err := h.host.StartOVS(ctx); err != nil {
			return err
		}
		if _, err := h.host.Output(ctx, "sh", "-c", `for b in $(ovs-vsctl --timeout=30 list-br); do [ "$b" = br-phy ] || ovs-vsctl --timeout=30 del-br "$b"; done`); err != nil {
			return err
		}
	}
	if _, err := h.host.Output(ctx, "sh", "-c", "rm -rf /var/lib/cni/* /etc/cni/*"); err != nil {
		return err
	}
	if err := h.host.Reboot(ctx); err != nil {
		return err
	}
	return h.ready(ctx)
}

// A try is one clause at work.
type try struct {
	*rig
	ctx    context.Context
	prefix string
	boxes  []*box
	after  []func() error
	note   string
}

// try tries a clause and takes away what it has made.
func (h *rig) try(ctx context.Context, i int, c Clause) (string, error) {
	t := &try{ctx: ctx, rig: h, prefix: fmt.Sprintf("c%d", i)}
	if err := t.fresh(); err != nil {
		return "", err
	}
	err := c.try(t)
	if cleanup := t.cleanup(); cleanup != nil && err == nil {
		err = fmt.Errorf("afterwards: %w", cleanup)
	}
	return t.note, err
}

// cleanup mends what the clause broke and detaches all of its boxes.
func (t *try) cleanup() error {
	var errs []error
	for _, f := range slices.Backward(t.after) {
		errs = append(errs, f())
	}
	errs = append(errs, t.fresh())
	script := ""
	for _, b := range t.boxes {
		if len(b.net.plugins) > 0 {
			errs = append(errs, t.del(b))
		}
		script += fmt.Sprintf("[ ! -e %s ] || ip netns delete %s\n", b.netns, strings.TrimPrefix(b.netns, netnsDir))
	}
	if script != "" {
		_, err := t.host.Output(t.ctx, "sh", "-c", script)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// record keeps an answer of the chain's for the clauses about all of them.
func (h *rig) record(a answer) {
	if h.net.index(a.plugin) < 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = append(h.seen, a)
}

// box names a container and makes its namespace.
func (t *try) box() (*box, error) {
	b := &box{id: fmt.Sprintf("%s-%d", t.prefix, len(t.boxes)+1), ifname: "eth0"}
	b.netns = netnsDir + b.id
	t.boxes = append(t.boxes, b)
	return b, t.netns(b)
}

// netns makes a box's namespace.
func (t *try) netns(b *box) error {
	name := strings.TrimPrefix(b.netns, netnsDir)
	return t.shell("ip netns add " + name + " && ip -n " + name + " link set lo up")
}

// attached makes boxes and attaches them.
func (t *try) attached(n network, count int) ([]*box, error) {
	var list []*box
	for range count {
		b, err := t.box()
		if err == nil {
			err = t.add(n, b)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, nil
}

// one is attached for a single box.
func (t *try) one(n network) (*box, error) {
	list, err := t.attached(n, 1)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// defers has f run after the clause.
func (t *try) defers(f func() error) { t.after = append(t.after, f) }

// shell runs a script on the host.
func (t *try) shell(script string) error { _, err := t.output(script); return err }

func (t *try) output(script string) (string, error) {
	return t.host.Output(t.ctx, "sh", "-ec", script)
}

// inside runs a script in a box's namespace.
func (t *try) inside(b *box, script string) (string, error) {
	return t.host.Output(t.ctx, "nsenter", "--net="+b.netns, "sh", "-ec", script)
}
