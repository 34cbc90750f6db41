package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"ovs-gre-cni/pkg/testnet"
)

// scaled is what an ADD costs where so many containers are attached.
type scaled struct {
	Chain string `json:"chain"`
	Peers int    `json:"peers"`
	Local int    `json:"local"`
	// Vswitchd is the median of ovs-vswitchd's CPU time, Median of the time from fork to
	// exit of the plugins, both in milliseconds.
	Vswitchd float64 `json:"vswitchd"`
	Median   float64 `json:"median"`
}

// fillAtOnce is how many of the containers that are only to be there are attached at a
// time: ovs-vswitchd goes through all ports once for those that come together.
const fillAtOnce = 40

// scale measures ADD with all numbers of peers, and of containers on the host.
func scale(ctx context.Context, o options, bin string, r *results) (err error) {
	var runs []*running
	lab, err := testnet.Start(ctx, testnet.Options{Hosts: max(3, len(o.peers)*len(o.ports)), PluginDir: bin})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	r.Datapath = lab.Datapath
	for _, ports := range o.ports {
		for _, n := range o.peers {
			if !r.measurable(n, ports) {
				continue
			}
			run, err := prepare(ctx, lab, len(runs), n, o, ports, "ovs-gre")
			if err != nil {
				return err
			}
			if err := run.start(ctx); err != nil {
				return err
			}
			defer run.stop()
			runs = append(runs, run)
		}
	}
	have := 0
	for _, local := range o.local {
		for _, run := range runs {
			for from := have; from < local; from += fillAtOnce {
				if err := run.must(ctx, request{Verb: "ADD", First: keeper + from, Count: min(fillAtOnce, local-from)}); err != nil {
					return err
				}
			}
		}
		fmt.Fprintf(os.Stderr, "bench: %d containers are attached on each of %d hosts\n", local, len(runs))
		have = local
		if err := addsBeside(ctx, o.containers, runs, local, r); err != nil {
			return err
		}
	}
	return nil
}

// addsBeside adds and deletes a container a number of times, on each host in turn.
func addsBeside(ctx context.Context, times int, runs []*running, local int, r *results) error {
	wall, cpu := make([][]time.Duration, len(runs)), make([][]time.Duration, len(runs))
	for range times {
		for i, run := range runs {
			a, err := run.ask(request{Verb: "ADD", Count: 1})
			if err == nil && a.Calls[0].Error != "" {
				err = fmt.Errorf("%s", a.Calls[0].Error)
			}
			if err == nil {
				err = run.must(ctx, request{Verb: "DEL", Count: 1})
			}
			if err != nil {
				return err
			}
			wall[i], cpu[i] = append(wall[i], a.Calls[0].Wall), append(cpu[i], a.Vswitchd)
		}
	}
	for i, run := range runs {
		r.scaled = append(r.scaled, scaled{run.name, run.peers, local, quantile(cpu[i], 0.5), quantile(wall[i], 0.5)})
	}
	return nil
}

// must asks for calls of which none may fail.
func (r *running) must(ctx context.Context, q request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	a, err := r.ask(q)
	for _, c := range a.Calls {
		if err == nil && c.Error != "" {
			err = fmt.Errorf("%s with %d peers: %s", r.name, r.peers, c.Error)
		}
	}
	return err
}

// scaledText is the table of scale for people.
func (r *results) scaledText() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d CPUs, %s datapath; load %s before, %s now. CPU time of ovs-vswitchd an ADD, and the ADD from fork to exit,\n"+
		"medians in ms, by peers and by containers that are attached to the host already.\n\n", runtime.NumCPU(), r.Datapath, r.load, load())
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "chain\tpeers\tcontainers\tovs-vswitchd\tADD\t")
	for _, s := range r.scaled {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.1f\t%.1f\t\n", s.Chain, s.Peers, s.Local, s.Vswitchd, s.Median)
	}
	_ = w.Flush()
	for _, why := range r.left {
		fmt.Fprintf(&b, "\n%s\n", why)
	}
	return b.String()
}
