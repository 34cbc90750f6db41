// Command bench measures ADD, CHECK and DEL of ovs-gre, route-sync and
// host-local beside containernetworking's bridge and host-local, interleaved,
// as processes called by libcni. It needs root and Open vSwitch.
//
// Slow is no failure: it exits non-zero only where a call failed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// options are the flags.
type options struct {
	containers int
	cold       int
	atOnce     []int
	peers      []int
	ports      []string
	local      []int
	together   bool
	nodesFile  bool
	against    string
	ipv6       bool
	json       bool
}

func main() { os.Exit(run()) }

func run() int {
	if len(os.Args) == 2 && os.Args[1] == insideArg {
		return report(serve(os.Stdin, os.Stdout))
	}
	o, err := parse()
	if err != nil {
		return report(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := bench(ctx, o)
	if err != nil {
		return report(err)
	}
	if o.json {
		err = json.NewEncoder(os.Stdout).Encode(r)
	} else {
		_, err = fmt.Print(r.text())
	}
	if err == nil && r.failures() > 0 {
		err = fmt.Errorf("%d calls failed, the first: %s", r.failures(), r.FirstError)
	}
	return report(err)
}

func report(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func parse() (o options, err error) {
	flag.IntVar(&o.containers, "n", 50, "`number` of containers for each combination, at least five rounds")
	flag.IntVar(&o.cold, "cold", 5, "times that the first ADD on a bare host is measured")
	atOnce := flag.String("c", "1,20", "how many at a time, a `list`")
	peers := flag.String("peers", "2,10,500", "how many peers, a `list`")
	ports := flag.String("ports", "peer", "values of tunnel.ports, a `list`: peer, one or both")
	local := flag.String("local", "", "instead: the CPU time of ovs-vswitchd an ADD where so many containers are attached, a `list`")
	flag.BoolVar(&o.together, "together", false, "measure all numbers of peers in turn, in one lab")
	flag.BoolVar(&o.nodesFile, "nodes-file", false, "nodes are in a nodesFile instead of the conflist")
	flag.StringVar(&o.against, "against", "", "`directory` with an ovs-gre and a route-sync of another build, to be measured in between")
	flag.BoolVar(&o.ipv6, "ipv6", false, "containers get an IPv6 address too; bridge then waits for duplicate address detection")
	flag.BoolVar(&o.json, "json", false, "print JSON")
	flag.Parse()
	if o.atOnce, err = numbers(*atOnce); err == nil {
		o.peers, err = numbers(*peers)
	}
	if err == nil && *local != "" {
		o.local, err = numbers(*local)
		slices.Sort(o.local)
	}
	o.ports = strings.Split(*ports, ",")
	if err == nil && flag.NArg() > 0 {
		err = fmt.Errorf("what is %q?", flag.Arg(0))
	}
	return o, err
}

func numbers(list string) ([]int, error) {
	var out []int
	for s := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q in %q: want a number above 0", s, list)
		}
		out = append(out, n)
	}
	return out, nil
}

// bench makes a lab for each number of peers and measures in it.
func bench(ctx context.Context, o options) (*results, error) {
	built, err := cnitest.Build()
	if err != nil {
		return nil, err
	}
	bin, err := os.MkdirTemp("", "ovs-gre-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(bin) }()
	// Copies: others may build while we measure.
	for name, from := range map[string]string{
		"ovs-gre": built, "route-sync": built, "bridge": built, "host-local": built,
		"other/ovs-gre": o.against, "other/route-sync": o.against,
	} {
		if from == "" {
			continue
		}
		if err := copyFile(filepath.Join(from, filepath.Base(name)), filepath.Join(bin, name)); err != nil {
			return nil, err
		}
	}
	r := newResults(o)
	if o.local != nil {
		return r, scale(ctx, o, bin, r)
	}
	labs := [][]int{o.peers}
	if !o.together {
		labs = nil
		for _, peers := range o.peers {
			labs = append(labs, []int{peers})
		}
	}
	for _, peers := range labs {
		if err := measure(ctx, o, bin, peers, r); err != nil {
			return nil, fmt.Errorf("%d peers: %w", peers, err)
		}
	}
	return r, nil
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// measure does all of some numbers of peers, in turn. Each chain has a host of
// its own, so that ovs-vswitchd does not work for the bridge's links.
func measure(ctx context.Context, o options, bin string, peers []int, r *results) (err error) {
	builds := 1
	if o.against != "" {
		builds = 2
	}
	lab, err := testnet.Start(ctx, testnet.Options{Hosts: max(3, 1+builds*len(peers)*len(o.ports)), PluginDir: bin})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	if r.Datapath = lab.Datapath; lab.Hosts[0].StopOVS(ctx) != nil {
		return fmt.Errorf("%s: Open vSwitch does not stop", lab.Hosts[0].Name)
	}
	runs := []*running{{name: "bridge", peers: peers[0], host: lab.Hosts[0], conflist: bridge(o.ipv6), path: "/opt/cni/bin", bare: "ip link delete " + bridgeName}}
	for _, n := range peers {
		for _, ports := range o.ports {
			for _, build := range []string{"ovs-gre", "other"}[:builds] {
				if !r.measurable(n, ports) {
					continue
				}
				run, err := prepare(ctx, lab, len(runs), n, o, ports, build)
				if err != nil {
					return err
				}
				runs = append(runs, run)
			}
		}
	}
	for _, run := range runs {
		if err := run.start(ctx); err != nil {
			return err
		}
		defer run.stop()
	}
	m := measuring{ctx, o, runs, r}
	if err := m.cold(); err != nil {
		return err
	}
	for _, c := range o.atOnce {
		if err := m.steady(c); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes a chain of a build, "ovs-gre" or "other", for the host with index i.
func prepare(ctx context.Context, lab *testnet.Lab, i, peers int, o options, ports, build string) (*running, error) {
	h := lab.Hosts[i]
	list, nodes := ours(lab, h, peers, o, ports)
	run := &running{name: build, peers: peers, host: h, conflist: list, path: "/opt/cni/bin"}
	if ports != "peer" {
		run.name += " " + ports
	}
	if build != "ovs-gre" {
		run.path += "/" + build
	}
	cmd := h.Command(ctx, "sh", "-ec", `mkdir -p "${1%/*}"; cat >"$1"`, "sh", nodesFile)
	cmd.Stdin = strings.NewReader(nodes)
	return run, cmd.Run()
}

// measuring is what is done in one lab.
type measuring struct {
	ctx  context.Context
	o    options
	runs []*running
	r    *results
}

var verbs = []string{"ADD", "CHECK", "DEL"}

// cold measures the first ADD on a bare host and the last DEL.
func (m measuring) cold() error {
	for range m.o.cold {
		for _, run := range m.runs {
			for _, verb := range []string{"ADD", "DEL"} {
				if err := m.call(run, key{run.peers, 1, run.name, "cold " + verb}, verb, 1); err != nil {
					return err
				}
			}
			if _, err := run.ask(request{Shell: run.bare}); err != nil {
				return err
			}
		}
	}
	return nil
}

// steady measures while one container more stays attached. The chains take
// turns, in this order and then in the other.
func (m measuring) steady(c int) error {
	for _, run := range m.runs {
		if _, err := run.ask(request{Verb: "ADD", First: keeper, Count: 1}); err != nil {
			return err
		}
	}
	for i := range max((m.o.containers+c-1)/c, 5) {
		for j := range m.runs {
			run := m.runs[(i+j)%len(m.runs)]
			for _, verb := range verbs {
				if err := m.call(run, key{run.peers, c, run.name, verb}, verb, c); err != nil {
					return err
				}
			}
		}
	}
	if err := m.memory(c); err != nil {
		return err
	}
	for _, run := range m.runs {
		if _, err := run.ask(request{Verb: "DEL", First: keeper, Count: 1}); err != nil {
			return err
		}
	}
	return nil
}

// memory calls each verb once more and notes what memory it took at most.
func (m measuring) memory(c int) error {
	for _, run := range m.runs {
		for _, verb := range verbs {
			a, err := run.ask(request{Verb: verb, Count: 1, Memory: true})
			if err != nil {
				return err
			}
			m.r.memory(key{run.peers, c, run.name, verb}, a)
		}
	}
	return nil
}

func (m measuring) call(run *running, k key, verb string, c int) error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	a, err := run.ask(request{Verb: verb, Count: c})
	if err == nil {
		m.r.add(k, a)
	}
	return err
}

// running is a chain and the part of this program that runs in its host.
type running struct {
	name     string
	peers    int
	host     *testnet.Host
	conflist []byte
	path     string
	// bare makes the host bare again where the last DEL does not.
	bare string

	in   *json.Encoder
	out  *json.Decoder
	stop func()
}

func (r *running) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := r.host.Command(ctx, self, insideArg)
	cmd.Env = append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r.in, r.out = json.NewEncoder(in), json.NewDecoder(out)
	r.stop = func() { _ = in.Close(); _ = cmd.Wait() }
	_, err = r.ask(request{Conflist: r.conflist, Path: r.path})
	return err
}

func (r *running) ask(q request) (answer, error) {
	var a answer
	err := r.in.Encode(q)
	if err == nil {
		err = r.out.Decode(&a)
	}
	if err == nil && a.Error != "" {
		err = fmt.Errorf("%s", a.Error)
	}
	if err != nil {
		err = fmt.Errorf("%s on %s: %w", r.name, r.host.Name, err)
	}
	return a, err
}

// settle is how long a host's daemons must be idle before the next call.
const settle = 20 * time.Millisecond
