package firewall

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

// Nothing of anybody else's changes, from the first CreateAndUpdate to the last Prune.
func TestOthersUntouched(t *testing.T) {
	newHost(t, docker+`
nft -f - <<'E'
table inet ovs-gre-bluer {
	chain postrouting { type nat hook postrouting priority srcnat; masquerade; }
}
table ip ovs-gre-blue {
	set sources4 { type ipv4_addr; flags interval; auto-merge; elements = { 10.0.0.0-10.0.0.7, 10.1.0.0/16 }; }
	chain postrouting { type filter hook forward priority 0; ip saddr @sources4 counter accept comment "ovs-gre:bluer"; }
}
table inet firewalld {
	chain forward { type filter hook forward priority filter + 10; iifname "docker0" ct state new limit rate 3/second reject with icmpx admin-prohibited; }
}
table bridge b { chain f { type filter hook forward priority 0; policy drop; }; }
table netdev d { }
E
iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
iptables-nft -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "ovs-gre:blue-green" -j ACCEPT
`)
	// Without the lines that tell the time.
	const list = "{ nft list ruleset; iptables-save; ip6tables-save; } | grep -v '^#'"
	before := sh(t, list)
	b := NewBackend("blue")
	if got := drift(t, b, nil); got != "" {
		t.Errorf("others' are taken for ours: %s", got)
	}
	ensure(t, b, wanted(append(blueAccepts, blue)...))
	if got := drift(t, b, wanted(append(blueAccepts, blue)...)); got != "" {
		t.Errorf("drift: %s", got)
	}
	if before == sh(t, list) {
		t.Error("Ensure made nothing")
	}
	prune(t, b, wanted(blueAccepts...))
	prune(t, b, nil)
	if diff := cmp.Diff(before, sh(t, list)); diff != "" {
		t.Errorf("others' (-before +after):\n%s", diff)
	}
}

// What is observed is of one moment, whoever else changes the ruleset.
func TestObserveWhileOthersWrite(t *testing.T) {
	newHost(t, "true")
	one := large(2000)
	two := state.Masquerade{Network: "blue", Sources: "10.2.0.0/24", Excluded: "192.0.2.0/24"}
	b, want := NewBackend("blue"), wanted(one)
	dir := t.TempDir()
	for file, m := range map[string]state.Masquerade{"/two": two, "/one": one} {
		ensure(t, b, wanted(m))
		if err := os.WriteFile(dir+file, []byte("delete table inet ovs-gre-blue\n"+listing(t)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writer := exec.Command("sh", "-c", "while nft -f "+dir+"/two && nft -f "+dir+"/one; do :; done")
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	seen := map[state.Object]int{}
	for start := time.Now(); time.Since(start) < time.Second || len(seen) < 2 && time.Since(start) < time.Minute; {
		have, err := b.Observe(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		seen[have[one.ID()]]++
	}
	if err := os.Remove(dir + "/two"); err != nil {
		t.Fatal(err)
	}
	_ = writer.Wait() // it ends for want of the file
	if len(seen) != 2 || seen[one] == 0 || seen[two] == 0 {
		t.Error("want one and the other, observed")
		for o, n := range seen {
			t.Errorf("%d times %.900v", n, o)
		}
	}
}

func TestErrors(t *testing.T) {
	newHost(t, "true")
	b := NewBackend("blue")
	bad := state.Masquerade{Network: "blue", Sources: "10.1.0.0/24,nonsense"}
	if err := b.Apply(t.Context(), []state.Change{{New: bad}}); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("bad CIDR: %v", err)
	}
	long := state.Masquerade{Network: strings.Repeat("n", 300)}
	if err := b.Apply(t.Context(), []state.Change{{New: long}, {New: blue}}); err == nil || !strings.Contains(err.Error(), "ovs-gre-nnn") {
		t.Errorf("long name: %v", err)
	}
	if got := drift(t, b, wanted(blue)); got != "" {
		t.Errorf("what comes after an error is not applied: %s", got)
	}
	gone := []state.Change{{Old: blue}, {Old: blue}, {Old: outward}, {Old: state.Sysctl{Key: "k"}}}
	if err := b.Apply(t.Context(), gone); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}

	// The thread's alone, and the thread is the test's.
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &make([]unix.CapUserData, 2)[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Observe(t.Context(), nil); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("without privilege: %v", err)
	}
	if err := b.Apply(t.Context(), []state.Change{{New: blue}}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("without privilege: %v", err)
	}

	for _, errno := range []error{unix.EPROTONOSUPPORT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT} {
		if !errors.Is(explain(errno), ErrUnsupported) {
			t.Errorf("%v is not explained", errno)
		}
	}
}
