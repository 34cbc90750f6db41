package cnitest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
)

// WireGuardGo builds WireGuard's implementation in user space, out of a module of
// its own, which the product has no part of.
var WireGuardGo = sync.OnceValues(func() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, ".cache", "wireguard-go")
	build := exec.Command("go", "build", "-trimpath", "-o", path, "golang.zx2c4.com/wireguard")
	build.Dir, build.Env = filepath.Join(root, "test", "wireguard-go"), append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build wireguard-go: %w\n%s", err, out)
	}
	return path, nil
})

// StartWireGuard makes a network's link on a host whose kernel has no WireGuard:
// by wireguard-go, which ends with the link. Where the kernel has it, the link is
// left to what is tested.
func StartWireGuard(t testing.TB, h *testnet.Host, network, bridge string) {
	t.Helper()
	const probe = "ip link add wgprobe type wireguard 2>/dev/null && ip link del wgprobe && echo yes || :"
	if h.Shell(t, probe) != "" {
		return
	}
	program, err := WireGuardGo()
	if err != nil {
		t.Fatal(err)
	}
	link := config.WireGuardName(bridge)
	h.Run(t, "sh", "-ec", `"$1" "$2" >/dev/null 2>&1 && ip link set dev "$2" alias "$3"`, "sh", program, link, config.WireGuardAlias(network))
}

// Keys are the public keys of a lab's hosts, by their names, as ovs-grectl key
// prints them. The conflist is there already.
func Keys(t testing.TB, hosts []*testnet.Host, args ...string) map[string]string {
	t.Helper()
	keys := map[string]string{}
	for _, h := range hosts {
		r := Ctl(t, h, append([]string{"key"}, args...)...)
		var n struct{ Name, Key string }
		if err := json.Unmarshal([]byte(r.Out), &n); err != nil || n.Name != h.Name || n.Key == "" {
			t.Fatalf("%s: ovs-grectl key: %v: %s%s", h.Name, err, r.Out, r.Err)
		}
		keys[h.Name] = strings.TrimSpace(n.Key)
	}
	return keys
}

// Keyed is the list of nodes with these keys.
func (n Network) Keyed(l *testnet.Lab, keys map[string]string) []Conf {
	nodes := n.NodeList(l)
	for _, node := range nodes {
		if k := keys[node["name"].(string)]; k != "" {
			node["key"] = k
		}
	}
	return nodes
}
