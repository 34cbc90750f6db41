package filter

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/state"
)

var (
	obr0   = state.Forward{Network: "blue", Dev: "obr0"}
	obr0t  = state.Forward{Network: "blue", Dev: "obr0-t"}
	others = state.Forward{Network: "bluer", Dev: "obr0"}
)

const docker = `
for i in iptables ip6tables; do
	$i -P FORWARD DROP
	$i -N DOCKER-USER; $i -A DOCKER-USER -j RETURN
	$i -N DOCKER; $i -A DOCKER -i docker0 -m comment --comment "ovs-gre" -j ACCEPT
	$i -A FORWARD -j DOCKER-USER; $i -A FORWARD -j DOCKER
done`

// hosts are the ways in which a host drops what it forwards: how it comes to,
// what it then lists with our accepts (- without, + with), how.
var hosts = []struct{ name, setup, list, diff string }{
	{"iptables-nft", "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP; iptables -A FORWARD -i eth7 -o eth8 -j ACCEPT", "iptables -S; ip6tables -S", `
 -P INPUT ACCEPT
 -P FORWARD DROP
 -P OUTPUT ACCEPT
+-A FORWARD -o obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -i obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
 -A FORWARD -i eth7 -o eth8 -j ACCEPT
 -P INPUT ACCEPT
 -P FORWARD DROP
 -P OUTPUT ACCEPT
+-A FORWARD -o obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -i obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
`},
	{"Docker", docker, "iptables -S", `
 -P INPUT ACCEPT
 -P FORWARD DROP
 -P OUTPUT ACCEPT
 -N DOCKER
 -N DOCKER-USER
 -A FORWARD -j DOCKER-USER
 -A FORWARD -j DOCKER
 -A DOCKER -i docker0 -m comment --comment ovs-gre -j ACCEPT
+-A DOCKER-USER -o obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A DOCKER-USER -i obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
 -A DOCKER-USER -j RETURN
`},
	{"DOCKER-USER that nothing leads to", docker + "; iptables -F FORWARD", "iptables -S", `
 -P INPUT ACCEPT
 -P FORWARD DROP
 -P OUTPUT ACCEPT
 -N DOCKER
 -N DOCKER-USER
+-A FORWARD -o obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -i obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
 -A DOCKER -i docker0 -m comment --comment ovs-gre -j ACCEPT
 -A DOCKER-USER -j RETURN
`},
	{"isolated bridges", `iptables -P FORWARD DROP
iptables -N CNI-ISOLATION-STAGE-1; iptables -A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-ISOLATION-STAGE-1; iptables -A FORWARD -i eth7 -j ACCEPT`, "iptables -S", `
 -P INPUT ACCEPT
 -P FORWARD DROP
 -P OUTPUT ACCEPT
 -N CNI-ISOLATION-STAGE-1
 -A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-ISOLATION-STAGE-1
+-A FORWARD -o obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -i obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
 -A FORWARD -i eth7 -j ACCEPT
`},
	{"IPv6 alone", "ip6tables -P FORWARD DROP; iptables -P FORWARD ACCEPT", "iptables -S; ip6tables -S", `
 -P INPUT ACCEPT
 -P FORWARD ACCEPT
 -P OUTPUT ACCEPT
 -P INPUT ACCEPT
 -P FORWARD DROP
 -P OUTPUT ACCEPT
+-A FORWARD -o obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -i obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
`},
	{"nft", "nft 'table inet fw { chain forward { type filter hook forward priority 0; policy drop; ct state established accept; iifname \"eth*\" accept; }; chain input { type filter hook input priority 0; policy drop; }; }'", "nft -s list ruleset", `
 table inet fw {
 	chain forward {
 		type filter hook forward priority filter; policy drop;
+		oifname "obr0" counter accept comment "ovs-gre:blue"
+		iifname "obr0" counter accept comment "ovs-gre:blue"
 		ct state established accept
 		iifname "eth*" accept
 	}
 
 	chain input {
 		type filter hook input priority filter; policy drop;
 	}
 }
`},
	{"nft with iptables' names", "nft 'table ip filter { set s { type ipv4_addr; }; chain FORWARD { type filter hook forward priority 10; policy drop; ip saddr @s drop; }; }'", "nft -s list ruleset", `
 table ip filter {
 	set s {
 		type ipv4_addr
 	}
 
 	chain FORWARD {
 		type filter hook forward priority filter + 10; policy drop;
+		oifname "obr0" counter accept comment "ovs-gre:blue"
+		iifname "obr0" counter accept comment "ovs-gre:blue"
 		ip saddr @s drop
 	}
 }
`},
	{"iptables-legacy", "iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP", "iptables-legacy -S; ip6tables-legacy -S", `
 -P INPUT ACCEPT
 -P FORWARD DROP
 -P OUTPUT ACCEPT
+-A FORWARD -o obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -i obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
 -P INPUT ACCEPT
 -P FORWARD DROP
 -P OUTPUT ACCEPT
+-A FORWARD -o obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -i obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
`},
	{"Docker with iptables-legacy", strings.NewReplacer("iptables ", "iptables-legacy ", "ip6tables;", "ip6tables-legacy;").Replace(docker), "iptables-legacy -S", `
 -P INPUT ACCEPT
 -P FORWARD DROP
 -P OUTPUT ACCEPT
 -N DOCKER
 -N DOCKER-USER
 -A FORWARD -j DOCKER-USER
 -A FORWARD -j DOCKER
 -A DOCKER -i docker0 -m comment --comment ovs-gre -j ACCEPT
+-A DOCKER-USER -o obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A DOCKER-USER -i obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
 -A DOCKER-USER -j RETURN
`},
}

// pick is one side of a diff.
func pick(diff string, signs string) string {
	var b strings.Builder
	for line := range strings.Lines(diff[1:]) {
		if strings.Contains(signs, line[:1]) {
			b.WriteString(line[1:])
		}
	}
	return b.String()
}

func newHost(t *testing.T, setup string) {
	t.Helper()
	newNetns(t, "nft", "iptables", "ip6tables", "ip")
	if strings.Contains(setup, "legacy") {
		if out, err := exec.Command("iptables-legacy", "-S").CombinedOutput(); err != nil {
			lacks(t, "no iptables-legacy on this machine or in its kernel: "+string(out))
		}
	}
	sh(t, setup)
}

func TestForward(t *testing.T) {
	for _, h := range hosts {
		t.Run(h.name, func(t *testing.T) {
			newHost(t, h.setup)
			b, want := NewBackend("blue"), wanted(obr0)
			if diff := cmp.Diff(pick(h.diff, " "), sh(t, h.list)); diff != "" {
				t.Fatalf("before (-want +got):\n%s", diff)
			}
			if got := drift(t, b, want); !strings.HasPrefix(got, "forward accept of obr0 is missing") {
				t.Errorf("before: %q", got)
			}
			ensure(t, b, want)
			if diff := cmp.Diff(pick(h.diff, " +"), sh(t, h.list)); diff != "" {
				t.Errorf("ensured (-want +got):\n%s", diff)
			}
			if got := drift(t, b, want); got != "" {
				t.Errorf("ensured: %s", got)
			}
			if err := b.Apply(t.Context(), []state.Change{{New: obr0}}); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(pick(h.diff, " +"), sh(t, h.list)); diff != "" {
				t.Errorf("applied again (-want +got):\n%s", diff)
			}

			// Another network's and another link's rules are none of this one's.
			both := wanted(obr0, obr0t)
			ensure(t, b, both)
			ensure(t, NewBackend("bluer"), wanted(others))
			if got := prune(t, b, both); len(got) != 0 {
				t.Errorf("pruned what is wanted: %v", got)
			}
			if got := prune(t, b, want); len(got) != 1 || got[0].Old != obr0t {
				t.Errorf("pruned %v, want %v", got, obr0t)
			}
			if got := prune(t, NewBackend("bluer"), nil); len(got) != 1 || got[0].Old != others {
				t.Errorf("pruned %v, want %v", got, others)
			}
			if diff := cmp.Diff(pick(h.diff, " +"), sh(t, h.list)); diff != "" {
				t.Errorf("pruned the others (-want +got):\n%s", diff)
			}
			prune(t, b, nil)
			prune(t, b, nil)
			if diff := cmp.Diff(pick(h.diff, " "), sh(t, h.list)); diff != "" {
				t.Errorf("pruned (-want +got):\n%s", diff)
			}
		})
	}
}

func TestForwardLost(t *testing.T) {
	type loss struct{ name, setup, script string }
	for _, tt := range []loss{
		{"iptables -F", hosts[0].setup, "iptables -F"},
		{"one direction", hosts[0].setup, "iptables -D FORWARD 1"},
		{"one family", hosts[0].setup, "ip6tables -F"},
		{"another verdict", hosts[0].setup, "iptables -R FORWARD 1 -o obr0 -m comment --comment ovs-gre:blue -j RETURN"},
		{"another condition", hosts[0].setup, "iptables -R FORWARD 1 -o obr0 -p tcp -m comment --comment ovs-gre:blue -j ACCEPT"},
		{"negated", hosts[0].setup, "iptables -R FORWARD 1 ! -o obr0 -m comment --comment ovs-gre:blue -j ACCEPT"},
		{"a prefix of the name", hosts[0].setup, "iptables -R FORWARD 1 -o obr0+ -m comment --comment ovs-gre:blue -j ACCEPT"},
		{"DOCKER-USER flushed", docker, "iptables -F DOCKER-USER"},
		{"Docker's FORWARD flushed", docker, "iptables -F FORWARD"},
		{"Docker started later", "true", docker},
		{"nft chain flushed", hosts[5].setup, "nft flush ruleset; " + hosts[5].setup},
		{"nft, another condition", hosts[5].setup, "nft replace rule inet fw forward handle $(nft -a list ruleset | awk '/oifname/ { print $NF }') meta mark 7 oifname obr0 accept comment '\"ovs-gre:blue\"'"},
		{"nft, a limit", hosts[5].setup, "nft replace rule inet fw forward handle $(nft -a list ruleset | awk '/oifname/ { print $NF }') limit rate 1/second oifname obr0 accept comment '\"ovs-gre:blue\"'"},
		{"nft, another set of conditions", hosts[5].setup, "nft replace rule inet fw forward handle $(nft -a list ruleset | awk '/oifname/ { print $NF }') 'oifname { obr0, obr1 }' accept comment '\"ovs-gre:blue\"'"},
		{"legacy, all names that begin so", hosts[7].setup, "iptables-legacy -R FORWARD 1 -o obr0+ -m comment --comment ovs-gre:blue -j ACCEPT"},
		{"legacy flushed", hosts[7].setup, "iptables-legacy -F FORWARD"},
		{"legacy, another condition", hosts[7].setup, "iptables-legacy -R FORWARD 1 ! -o obr0 -m comment --comment ovs-gre:blue -j ACCEPT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newHost(t, tt.setup)
			b, want := NewBackend("blue"), wanted(obr0)
			ensure(t, b, want)
			sh(t, tt.script)
			if got := drift(t, b, want); !strings.Contains(got, "forward accept of obr0 is missing") {
				t.Errorf("drift is %q", got)
			}
			ensure(t, b, want)
			prune(t, b, want) // what names no link that is wanted
			if got := drift(t, b, want); got != "" {
				t.Errorf("mended: %s", got)
			}
			prune(t, b, nil)
			all := sh(t, "nft list ruleset; for i in iptables ip6tables iptables-legacy ip6tables-legacy; do $i -S; done 2>&1")
			if strings.Contains(all, "obr") {
				t.Errorf("left over:\n%s", all)
			}
		})
	}
}

func TestForwardAccepting(t *testing.T) {
	for _, setup := range []string{"true", "iptables -P FORWARD ACCEPT", "iptables-legacy -P FORWARD ACCEPT", "nft 'table inet fw { chain forward { type filter hook forward priority 0; drop; }; }'"} {
		t.Run(setup, func(t *testing.T) {
			newHost(t, setup)
			list := "nft list ruleset; iptables-legacy -S 2>&1"
			before := sh(t, list)
			b, want := NewBackend("blue"), wanted(obr0)
			if got := ensure(t, b, want); len(got) != 0 {
				t.Errorf("changed %v", got)
			}
			prune(t, b, nil)
			if diff := cmp.Diff(before, sh(t, list)); diff != "" {
				t.Errorf("ruleset (-before +after):\n%s", diff)
			}
		})
	}
}

// A Forward of ours stays ours when Docker is gone and FORWARD accepts again.
func TestForwardOwnedWithoutDrop(t *testing.T) {
	newHost(t, docker)
	b := NewBackend("blue")
	ensure(t, b, wanted(obr0))
	sh(t, "iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT; iptables -F FORWARD")
	if got := drift(t, b, nil); !strings.Contains(got, "forward accept of obr0 is left over") {
		t.Errorf("drift is %q", got)
	}
	prune(t, b, nil)
	if got := sh(t, "iptables -S; ip6tables -S"); strings.Contains(got, "obr0") {
		t.Errorf("left over:\n%s", got)
	}
}

// firewalld owns its tables (NftablesTableOwner=yes): nobody else may write.
func TestForwardOwnedTable(t *testing.T) {
	newHost(t, "true")
	cmd := exec.Command("nft", "-i")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = cmd.Wait() }()
	if _, err := in.Write([]byte("add table inet fw { flags owner; }\nadd chain inet fw forward { type filter hook forward priority 0; policy drop; }\n")); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); !strings.Contains(ruleset(t), "drop"); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 5*time.Second {
			lacks(t, "this nft has no flags owner")
		}
	}
	err = NewBackend("blue").Apply(t.Context(), []state.Change{{New: obr0}})
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "flags owner") {
		t.Errorf("error is %v", err)
	}
}

// Without iptables the rules in its chains are nft's; iptables can still list
// and delete them.
func TestForwardWithoutIPTables(t *testing.T) {
	newHost(t, docker)
	before := sh(t, "iptables -S")
	b, want := NewBackend("blue"), wanted(obr0)
	path := os.Getenv("PATH")
	t.Setenv("PATH", t.TempDir())
	lookIn = nil
	t.Cleanup(func() { lookIn = sbin })
	ensure(t, b, want)
	if got := drift(t, b, want); got != "" {
		t.Error(got)
	}
	t.Setenv("PATH", path)
	if got := sh(t, "iptables -S DOCKER-USER"); !strings.HasPrefix(got, "-N DOCKER-USER\n-A DOCKER-USER -o obr0 ") {
		t.Errorf("iptables lists\n%s", got)
	}
	prune(t, b, nil)
	if diff := cmp.Diff(before, sh(t, "iptables -S")); diff != "" {
		t.Errorf("pruned (-before +after):\n%s", diff)
	}
}

// Observing what is as it should be starts no process.
func TestObserveStartsNoProcess(t *testing.T) {
	newHost(t, docker)
	b, want := NewBackend("blue"), wanted(obr0, blue)
	ensure(t, b, want)
	t.Setenv("PATH", t.TempDir())
	lookIn = nil
	t.Cleanup(func() { lookIn = sbin })
	if got := drift(t, b, want); got != "" {
		t.Error(got)
	}
	if _, err := runIPTables(context.Background(), gate{family: 2, iptables: "nft"}, "-S"); !errors.Is(err, errNoProgram) {
		t.Errorf("there is an iptables to start: %v", err)
	}
}

func TestParseSaved(t *testing.T) {
	const out = `-P FORWARD DROP
-N DOCKER-USER
-A FORWARD -i a -m comment --comment "ovs-gre:x" -j ACCEPT
-A FORWARD -m comment --comment plain -o b -j ACCEPT
-A FORWARD -i c -m socket -j ACCEPT
-A FORWARD ! -i d -j ACCEPT
-A FORWARD -i e -p tcp -m tcp --dport 80 -j ACCEPT
-A FORWARD -m comment --comment "a \"b\" -j c" -j LOG --log-prefix "-i f "
-A DOCKER-USER -j RETURN
`
	c, drops := parseSaved("FORWARD", out)
	if !drops || c.name != "FORWARD" {
		t.Errorf("chain %s, drops %t", c.name, drops)
	}
	for i := range c.rules {
		c.rules[i].args = nil
	}
	want := []accept{
		{in: "a", comment: "ovs-gre:x", verdict: "ACCEPT"},
		{out: "b", comment: "plain", verdict: "ACCEPT"},
		{in: "c", verdict: "ACCEPT", more: true},
		{in: "d", verdict: "ACCEPT", more: true},
		{in: "e", verdict: "ACCEPT", more: true},
		{comment: `a "b" -j c`, verdict: "LOG", more: true},
	}
	if diff := cmp.Diff(want, c.rules, cmp.AllowUnexported(accept{})); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}
