package hostile

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

func TestMain(m *testing.M) { cnitest.Main(m) }

// segments are what a row that concerns all of them runs in.
var segments = []string{"host", "mesh", "container"}

// figure prints what was measured.
func figure(format string, args ...any) { fmt.Printf("hostile: "+format+"\n", args...) }

func lab(t *testing.T, hosts int) *testnet.Lab {
	t.Helper()
	return testnet.New(t, testnet.Options{Hosts: hosts, PluginDir: cnitest.BinDir(t)})
}

// datapath is that of this machine's labs.
func datapath(t *testing.T) string { return testnet.New(t, testnet.Options{NoOVS: true}).Datapath }

// only4 are container subnets without IPv6.
func only4(i int) []string { return cnitest.Subnets(i)[:1] }

// send sends frames from a link of a place, each once.
func send(t *testing.T, from testnet.Runner, link string, frames ...string) {
	t.Helper()
	if out, err := cnitest.Program(context.Background(), from, "frames", append([]string{link}, frames...)...).CombinedOutput(); err != nil {
		t.Fatalf("frames: %v: %s", err, out)
	}
}

// keepSending sends frames from a link again and again until it is stopped.
func keepSending(t *testing.T, from testnet.Runner, link string, pause time.Duration, frames ...string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := cnitest.Program(ctx, from, "repeat", append([]string{link, pause.String()}, frames...)...)
	testnet.StartReady(t, cmd)
	stop = func() {
		cancel()
		_ = cmd.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// mac is the MAC address of a link.
func mac(t *testing.T, at testnet.Runner, link string) string {
	t.Helper()
	var links []struct{ Address string }
	if err := json.Unmarshal([]byte(at.Run(t, "ip", "-j", "link", "show", link)), &links); err != nil || len(links) != 1 {
		t.Fatalf("link %s: %v", link, err)
	}
	return links[0].Address
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// loss pings an address every 50 ms and returns how many percent of count
// answers did not come.
func loss(t *testing.T, from testnet.Runner, to netip.Addr, count int) int {
	t.Helper()
	out, _ := from.Output(context.Background(), "ping", "-n", "-q", "-i", "0.05", "-W", "2", "-c", strconv.Itoa(count), to.String())
	for line := range strings.Lines(out) {
		var sent, received int
		if n, _ := fmt.Sscanf(line, "%d packets transmitted, %d received", &sent, &received); n == 2 && sent > 0 {
			return 100 * (sent - received) / sent
		}
	}
	return 100 // "Network is unreachable"
}

// leastLoss is the least loss of three attempts, or the first that is small. An attack
// that works has every attempt lose nearly all; a busy machine has one lose some.
func leastLoss(t *testing.T, from testnet.Runner, to netip.Addr, count int) int {
	t.Helper()
	least := 100
	for try := 0; try < 3 && least > 10; try++ {
		least = min(least, loss(t, from, to, count))
	}
	return least
}

// plugLAN plugs a link lan0 of each of the hosts into a switch of the name, in
// the underlay's namespace. A neighbour on that LAN sends from the switch's own
// link.
func plugLAN(t *testing.T, l *testnet.Lab, name string, hosts ...*testnet.Host) {
	t.Helper()
	l.Underlay.Run(t, "ip", "link", "add", name, "type", "bridge", "mcast_snooping", "0")
	l.Underlay.Run(t, "ip", "link", "set", name, "addrgenmode", "none", "up")
	for _, h := range hosts {
		args := []string{"--target", strconv.Itoa(l.Underlay.PID()), "--net", "--", "ip", "link", "add", name + "-" + h.Name, "master", name, "up",
			"type", "veth", "peer", "name", "lan0", "netns", strconv.Itoa(h.PID())}
		if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
			t.Fatalf("LAN: %v: %s", err, out)
		}
		h.Run(t, "ip", "link", "set", "lan0", "addrgenmode", "none", "up")
	}
}

// framesOn is how many frames the hosts have sent to a switch of plugLAN.
func framesOn(t *testing.T, l *testnet.Lab, name string) int {
	t.Helper()
	var links []struct {
		Stats struct{ RX struct{ Packets int } } `json:"stats64"`
	}
	out := l.Underlay.Run(t, "ip", "-json", "-statistics", "link", "show", "master", name)
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		t.Fatalf("ip link: %v: %s", err, out)
	}
	sum := 0
	for _, k := range links {
		sum += k.Stats.RX.Packets
	}
	return sum
}

// gateway is the first address of host i's container subnet of a family.
func gateway(i int, v6 bool) netip.Addr {
	s := cnitest.Subnets(i)
	if v6 {
		return config.Gateway(netip.MustParsePrefix(s[1]))
	}
	return config.Gateway(netip.MustParsePrefix(s[0]))
}
