package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// key names a line of the table.
type key struct {
	Peers  int    `json:"peers"`
	AtOnce int    `json:"atOnce"`
	Chain  string `json:"chain"`
	Verb   string `json:"verb"`
}

// A line is what was measured of a key. Times are in milliseconds.
type line struct {
	key
	Calls    int     `json:"calls"`
	Failures int     `json:"failures"`
	Min      float64 `json:"min"`
	Median   float64 `json:"median"`
	P95      float64 `json:"p95"`
	// CPU is the median of the plugins' CPU time, Daemons the mean of Open
	// vSwitch's.
	CPU     float64 `json:"cpu"`
	Daemons float64 `json:"daemons"`
	// MaxRSS is in MiB; 0 is not measured.
	MaxRSS float64 `json:"maxRSS,omitempty"`
	// Ratios to the line of bridge.
	RatioMedian float64 `json:"ratioMedian,omitempty"`
	RatioMin    float64 `json:"ratioMin,omitempty"`
	RatioCPU    float64 `json:"ratioCPU,omitempty"`
	// Growth is the ratio of the median to that with the first number of peers.
	Growth float64 `json:"growth,omitempty"`
}

// results are all samples of a run.
type results struct {
	Datapath   string
	FirstError string
	load       string
	// left are the combinations that were left out, and why.
	left []string
	// scaled is the table of scale.
	scaled []scaled

	order   []key
	samples map[key]*sample
}

type sample struct {
	wall, cpu []time.Duration
	daemons   time.Duration
	maxRSS    int64
	failures  int
}

func newResults(options) *results {
	return &results{samples: map[key]*sample{}, load: load()}
}

// peerPorts is how many peers have a port each at most: ovs-vswitchd makes 5,000 in
// minutes, and an ADD waits 10 s.
const peerPorts = 2000

// measurable reports whether a network of so many peers is measured, and notes why not.
func (r *results) measurable(peers int, ports string) bool {
	if ports != "peer" || peers <= peerPorts {
		return true
	}
	why := fmt.Sprintf("%d peers with tunnel.ports peer: left out: ovs-vswitchd takes minutes to make so many ports, and the first ADD gives up after 10 s", peers)
	if !slices.Contains(r.left, why) {
		r.left = append(r.left, why)
	}
	return false
}

func load() string {
	raw, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(raw), " ")
	return one
}

func (r *results) of(k key) *sample {
	s := r.samples[k]
	if s == nil {
		s = &sample{}
		r.samples[k] = s
		r.order = append(r.order, k)
	}
	return s
}

// add takes the answers of one round of calls.
func (r *results) add(k key, a answer) {
	s := r.of(k)
	s.daemons += a.Daemons
	for _, c := range a.Calls {
		if c.Error != "" {
			s.failures++
			if r.FirstError == "" {
				r.FirstError = fmt.Sprintf("%s with %d peers, %d at a time: %s", k.Chain, k.Peers, k.AtOnce, c.Error)
			}
			continue
		}
		s.wall, s.cpu = append(s.wall, c.Wall), append(s.cpu, c.CPU)
	}
}

func (r *results) memory(k key, a answer) {
	for _, c := range a.Calls {
		r.of(k).maxRSS = max(r.of(k).maxRSS, c.MaxRSS)
		if c.Error != "" {
			r.of(k).failures++
			r.FirstError = c.Error
		}
	}
}

func (r *results) failures() (n int) {
	for _, s := range r.samples {
		n += s.failures
	}
	return n
}

// lines are the results in the order of measuring, the chains of a verb side
// by side.
func (r *results) lines() []line {
	var list []line
	at := map[key]int{}
	first := map[key]int{}
	for i, k := range r.order {
		k.Chain = ""
		if _, ok := first[k]; !ok {
			first[k] = i
		}
	}
	rank := func(k key) int {
		k.Chain = ""
		return first[k]
	}
	for _, k := range slices.SortedStableFunc(slices.Values(r.order), func(a, b key) int { return rank(a) - rank(b) }) {
		s := r.samples[k]
		l := line{key: k, Calls: len(s.wall) + s.failures, Failures: s.failures,
			Min: quantile(s.wall, 0), Median: quantile(s.wall, 0.5), P95: quantile(s.wall, 0.95),
			CPU: quantile(s.cpu, 0.5), MaxRSS: float64(s.maxRSS) / 1024}
		if n := len(s.wall) + s.failures; n > 0 {
			l.Daemons = millis(s.daemons) / float64(n)
		}
		at[k] = len(list)
		list = append(list, l)
	}
	for i, l := range list {
		for _, first := range list[:i] {
			if k := l.key; first.Peers != k.Peers && first.Median > 0 {
				if k.Peers = first.Peers; k == first.key {
					list[i].Growth = l.Median / first.Median
					break
				}
			}
		}
		other := l.key
		other.Chain = "bridge"
		for k := range at { // measured once for all numbers of peers of a lab
			if _, own := at[other]; !own && k.Chain == other.Chain && k.AtOnce == other.AtOnce && k.Verb == other.Verb {
				other.Peers = k.Peers
			}
		}
		if j, ok := at[other]; ok && l.Chain != "bridge" && list[j].Min > 0 {
			list[i].RatioMedian, list[i].RatioMin, list[i].RatioCPU = l.Median/list[j].Median, l.Min/list[j].Min, l.CPU/list[j].CPU
		}
	}
	return list
}

func quantile(d []time.Duration, q float64) float64 {
	if len(d) == 0 {
		return 0
	}
	d = slices.Sorted(slices.Values(d))
	return millis(d[int(q*float64(len(d)-1)+0.5)])
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// MarshalJSON implements json.Marshaler.
func (r *results) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"leftOut": r.left, "scaled": r.scaled, "datapath": r.Datapath, "cpus": runtime.NumCPU(), "loadBefore": r.load, "firstError": r.FirstError, "lines": r.lines()})
}

// text is the table for people.
func (r *results) text() string {
	if r.scaled != nil {
		return r.scaledText()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d CPUs, %s datapath; load %s before, %s now. Times in ms, memory in MiB.\n"+
		"cpu: the plugins' processes, ovs: ovsdb-server and ovs-vswitchd. The ratios are to bridge + host-local,\n"+
		"growth is the median's ratio to that with the first number of peers.\n\n",
		runtime.NumCPU(), r.Datapath, r.load, load())
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "peers\tat once\tverb\tchain\tcalls\tfailed\tmin\tmedian\tp95\tcpu\tovs\trss\tmedian ratio\tmin ratio\tcpu ratio\tgrowth\t")
	for _, l := range r.lines() {
		fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%d\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%s\t%s\t%s\t%s\t%s\t\n", l.Peers, l.AtOnce, l.Verb, l.Chain,
			l.Calls, l.Failures, l.Min, l.Median, l.P95, l.CPU, l.Daemons, unless0("%.1f", l.MaxRSS),
			unless0("%.2f", l.RatioMedian), unless0("%.2f", l.RatioMin), unless0("%.2f", l.RatioCPU), unless0("%.2f", l.Growth))
	}
	_ = w.Flush()
	for _, why := range r.left {
		fmt.Fprintf(&b, "\n%s\n", why)
	}
	return b.String()
}

func unless0(format string, v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf(format, v)
}
