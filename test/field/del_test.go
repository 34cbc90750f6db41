package field

import (
	"context"
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestDELWithLostKeys: what DEL's configuration has lost is made up for by the
// one that host state was made of: IPAM's keys, OVSDB's socket, all but the name
// (hostile.md row 16: the address leaked; multus strips configurations).
func TestDELWithLostKeys(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	routers(t, l)
	h.Shell(t, "ln -s /run/openvswitch /run/elsewhere; mkdir -p /run/more && cp /opt/cni/bin/host-local /run/more/pool")
	const path = "CNI_PATH=/opt/cni/bin:/run/more"
	before := cnitest.MustLook(t, h)
	for _, ipam := range []cnitest.Conf{
		{"type": "host-local"}, {"type": "host-local", "dataDir": "/var/lib/cni/other"},
		{"type": "pool", "subnet": "192.168.1.0/24"},
	} {
		n := cnitest.Network{OVSGRE: cnitest.Conf{"ipam": ipam, "bridge": "obr7", "ovsdb": "unix:/run/elsewhere/db.sock", "ipMasq": true}}
		conf := cnitest.PluginConf(t, n.Conflist(l), "ovs-gre", nil)
		for _, given := range []string{
			`{"cniVersion":"1.1.0","name":"ovsnet","type":"ovs-gre"}`,
			`{"cniVersion":"1.1.0","name":"ovsnet","type":"ovs-gre","ipam":{}}`,
			`{"cniVersion":"1.1.0","name":"ovsnet","type":"ovs-gre","ipam":{"type":"` + ipam["type"].(string) + `"}}`,
			with(t, conf, cnitest.Conf{"ipam": nil}), with(t, conf, cnitest.Conf{"nodes": nil, "ipam": nil, "nodesFile": "/gone.json"}),
		} {
			c := attached(t, h, "c1", conf, path)
			del(t, c, given, path)
			if held := h.Shell(t, "grep -rl c1 /var/lib/cni || true"); held != "" {
				t.Errorf("%v: DEL with %s leaves %s", ipam, given, held)
			}
			del(t, c, conf, path)
			c.Delete(t)
			settled(t, before, h)
		}
	}
}

// TestLockOfHostLocal: a process that holds host-local's lock keeps nobody
// longer than the call may take, and the error names the lock (hostile.md row
// 13: DEL took 24.6 s, ADD with timeoutSeconds 3 took 19.5 s and blamed a link).
func TestLockOfHostLocal(t *testing.T) {
	t.Parallel()
	l := lab(t, 1)
	h := l.Hosts[0]
	conf := cnitest.PluginConf(t, cnitest.Network{}.Conflist(l), "ovs-gre", nil)
	c1, c2 := attached(t, h, "c1", conf), h.NewNetns(t, "c2")
	const lock = "/var/lib/cni/networks/ovsnet/lock"
	before := cnitest.MustLook(t, h)
	hold := h.Command(t.Context(), "flock", "-o", lock, "sleep", "600")
	if err := hold.Start(); err != nil {
		t.Fatal(err)
	}
	free := sync.OnceFunc(func() { _ = testnet.Signal(hold, syscall.SIGKILL); _ = hold.Wait() })
	defer free()
	waitFor(t, func() bool { return output(h, "flock -n %s true || echo taken", lock) != "" })

	short := cnitest.Conf{"timeoutSeconds": 3, "cni.dev/valid-attachments": []string{}}
	for _, verb := range []string{"ADD", "DEL", "GC"} {
		of := c2
		if verb == "DEL" {
			of = c1.Netns
		}
		// A lock that is waited for without end would hold the call for 600 s.
		begin := time.Now()
		_, err := bounded(t, 60*time.Second, func() (string, error) { return cnitest.Call(of, "ovs-gre", verb, with(t, conf, short)) })
		t.Logf("%s took %v: %v", verb, time.Since(begin).Round(100*time.Millisecond), err)
		cnitest.WantError(t, err, tryAgain, "host-local", "another process holds the lock "+lock)
		var e *types.Error
		if errors.As(err, &e) && strings.Contains(e.Msg, "link og") {
			t.Errorf("%s: blames a link: %s", verb, e.Msg)
		}
		if verb == "ADD" {
			settled(t, before, h)
		}
	}
	free()
	waitFor(t, func() bool { return output(h, "flock -n %s true || echo taken", lock) == "" })
	del(t, c1, conf)
	if held := addresses(t, h, "ovsnet"); held != "" {
		t.Errorf("left: %s", held)
	}
}

// bounded runs a call and gives up on it after a time.
func bounded(t *testing.T, within time.Duration, call func() (string, error)) (string, error) {
	t.Helper()
	type reply struct {
		out string
		err error
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	done := make(chan reply, 1)
	go func() {
		out, err := call()
		done <- reply{out, err}
	}()
	select {
	case r := <-done:
		return r.out, r.err
	case <-ctx.Done():
		t.Fatalf("no end within %v", within)
		return "", nil
	}
}
