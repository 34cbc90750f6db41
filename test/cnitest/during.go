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

// soon is how long the first packet between containers may go unanswered.
const soon = 30 * time.Second

// During pings one container from another every 50 ms while f runs, and until
// the pinged answers again, for which it has as long as within says. It returns
// how many pings were sent and how many answered. f is to meet a conversation
// that goes on: without an answer before it the test ends.
func During(t testing.TB, from, to *Container, within time.Duration, f func()) (sent, answered int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cmd := from.Command(ctx, "ping", "-n", "-i", "0.05", to.Addr(t, false).String())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	giveUp := time.AfterFunc(soon, cancel) // ping itself would go on for ever
	lines := bufio.NewReader(out)
	for line := ""; !strings.Contains(line, "bytes from"); {
		if line, err = lines.ReadString('\n'); err != nil {
			t.Fatalf("%s does not answer %s within %v: %v", to.Addr(t, false), from.Name, soon, err)
		}
	}
	giveUp.Stop()
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
