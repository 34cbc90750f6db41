package cnitest

import (
	"bufio"
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
)

var summary = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)

// During pings one container from another every 50 ms while f runs, and until
// the pinged answers again, for which it has as long as within says. It returns
// how many pings were sent and how many answered.
func During(t testing.TB, from, to *Container, within time.Duration, f func()) (sent, answered int) {
	t.Helper()
	cmd := from.Command(context.Background(), "ping", "-n", "-i", "0.05", to.Addr(t, false).String())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("ping ended: %v", err)
		}
		if strings.Contains(line, "bytes from") {
			break // what f does is to meet a conversation that goes on
		}
	}
	f()
	testnet.Eventually(t, within, func() error {
		lost, err := Unreached(from, to.Addrs()...)
		if err == nil && len(lost) > 0 {
			err = fmt.Errorf("no answer from %v", lost)
		}
		return err
	})
	if err := testnet.Signal(cmd, 2); err != nil {
		t.Fatal(err)
	}
	var rest strings.Builder
	if _, err := lines.WriteTo(&rest); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	m := summary.FindStringSubmatch(rest.String())
	if m == nil {
		t.Fatalf("ping printed no summary: %s", rest.String())
	}
	sent, _ = strconv.Atoi(m[1])
	answered, _ = strconv.Atoi(m[2])
	return sent, answered
}
