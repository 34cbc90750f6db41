package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"sync"

	"ovs-gre-cni/pkg/testnet"
)

var rtt = regexp.MustCompile(`time=([0-9.]+) ms`)

// pingOnce returns the round trip in milliseconds, as ping prints it.
func pingOnce(ctx context.Context, from testnet.Runner, to netip.Addr) (string, error) {
	args := []string{"-c", "1", "-W", "2", to.String()}
	out, err := from.Output(ctx, "ping", args...)
	if m := rtt.FindStringSubmatch(out); err == nil && m != nil {
		return m[1], nil
	}
	return "", fmt.Errorf("ping %s: no answer: %w", to, err)
}

// matrix prints who reaches whom and returns how many pings went unanswered.
func matrix(ctx context.Context, lab *testnet.Lab, containers []end) (bad int) {
	from, to := containers, append([]end{}, containers...)
	for _, h := range lab.Hosts {
		from = append(from, end{h.Name, h, h.Addr4})
		to = append(to, end{h.Name, nil, h.Addr4})
	}
	to = append(to, end{"outside", nil, lab.Underlay.Addr4})
	cells := make([][]string, len(from))
	var wg sync.WaitGroup
	for i, f := range from {
		cells[i] = make([]string, len(to))
		wg.Go(func() {
			for j, t := range to {
				if f.addr == t.addr {
					cells[i][j] = "·"
				} else if ms, err := pingOnce(ctx, f.from, t.addr); err == nil {
					cells[i][j] = ms
				}
			}
		})
	}
	wg.Wait()
	const w = 9
	fmt.Printf("round trips in ms%*s", 8, "to ")
	for _, t := range to {
		fmt.Printf("%*s", w, t.name)
	}
	fmt.Println()
	for i, f := range from {
		fmt.Printf("from %-6s %-13s", f.name, f.addr)
		for j := range to {
			if cells[i][j] == "" {
				bad++
				fmt.Print(red(fmt.Sprintf("%*s", w, "FAIL")))
			} else {
				fmt.Print(green(fmt.Sprintf("%*s", w, cells[i][j])))
			}
		}
		fmt.Println()
	}
	return bad
}

func green(s string) string { return colour("32", s) }
func red(s string) string   { return colour("31", s) }

// colour is for a person at a terminal.
func colour(code, s string) string {
	if st, err := os.Stdout.Stat(); err != nil || st.Mode()&os.ModeCharDevice == 0 || os.Getenv("NO_COLOR") != "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
