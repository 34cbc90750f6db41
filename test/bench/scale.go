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
	// Vswitchd is the median of ovs-vswitchd's CPU time, CPU of the plugins', Median of
	// the time from fork to exit of these, all in milliseconds.
	Vswitchd float64 `json:"vswitchd"`
	CPU      float64 `json:"cpu"`
	Median   float64 `json:"median"`
}

// fillAtOnce is how many of the containers that are only to be there are attached at a
// time: ovs-vswitchd goes through all ports once for those that come together.
const fillAtOnce = 100

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
	begin, have := time.Now(), 0
	progress := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "bench: %4.0f s: %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}
	for _, local := range o.local {
		for _, run := range runs {
			if err := run.fill(ctx, have, local, progress); err != nil {
				return err
			}
		}
		have = local
		progress("measuring beside %d containers on each of %d hosts", local, len(runs))
		if err := addsBeside(ctx, o.containers, runs, local, r); err != nil {
			return err
		}
	}
	return nil
}

// fill attaches containers until there are so many, and tells now and then how far it is.
func (r *running) fill(ctx context.Context, have, local int, progress func(string, ...any)) error {
	told := time.Now()
	for have < local {
		count := min(fillAtOnce, local-have)
		if err := r.must(ctx, request{Verb: "ADD", First: keeper + have, Count: count}); err != nil {
			return err
		}
		if have += count; time.Since(told) > 10*time.Second {
			told = time.Now()
			progress("%s with %d peers has %d of %d containers", r.name, r.peers, have, local)
		}
	}
	return nil
}

// addsBeside adds and deletes a container a number of times, on each host in turn.
func addsBeside(ctx context.Context, times int, runs []*running, local int, r *results) error {
	wall, cpu, vswitchd := make([][]time.Duration, len(runs)), make([][]time.Duration, len(runs)), make([][]time.Duration, len(runs))
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
			wall[i], cpu[i], vswitchd[i] = append(wall[i], a.Calls[0].Wall), append(cpu[i], a.Calls[0].CPU), append(vswitchd[i], a.Vswitchd)
		}
	}
	for i, run := range runs {
		r.scaled = append(r.scaled, scaled{run.name, run.peers, local, quantile(vswitchd[i], 0.5), quantile(cpu[i], 0.5), quantile(wall[i], 0.5)})
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
	fmt.Fprintf(&b, "%d CPUs, %s datapath; load %s before, %s now. CPU time of ovs-vswitchd and of the plugins an ADD, and the ADD from fork\n"+
		"to exit, medians in ms, by peers and by containers that are attached to the host already.\n\n", runtime.NumCPU(), r.Datapath, r.load, load())
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "chain\tpeers\tcontainers\tovs-vswitchd\tplugins\tADD\t")
	for _, s := range r.scaled {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.1f\t%.1f\t%.1f\t\n", s.Chain, s.Peers, s.Local, s.Vswitchd, s.CPU, s.Median)
	}
	_ = w.Flush()
	for _, why := range r.left {
		fmt.Fprintf(&b, "\n%s\n", why)
	}
	return b.String()
}
