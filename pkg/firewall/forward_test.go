package firewall

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

// forwardsOf are the Forwards of a network whose containers are behind gw, and
// its peers' behind in.
func forwardsOf(network, gw, in string) []state.Object {
	var list []state.Object
	for _, f := range [][2]string{{"10.1.0.0/24", "10.1.1.0/24"}, {"fd00:1::/64", "fd00:2::/64"}} {
		list = append(list,
			state.Forward{Network: network, In: gw, From: f[0]},
			state.Forward{Network: network, Out: gw, To: f[0], Answers: true},
			state.Forward{Network: network, In: in, Out: gw, From: f[1], To: f[0]})
	}
	return list
}

var (
	blueAccepts  = forwardsOf("blue", "obr0", "obr0-t")
	bluerAccepts = forwardsOf("bluer", "obr9", "obr9-t")
	// one of them
	outward = blueAccepts[0].(state.Forward)
)

const docker = `
for i in iptables ip6tables; do
	$i -P FORWARD DROP
	$i -N DOCKER-USER; $i -A DOCKER-USER -j RETURN
	$i -N DOCKER; $i -A DOCKER -i docker0 -m comment --comment "ovs-gre" -j ACCEPT
	$i -A FORWARD -j DOCKER-USER; $i -A FORWARD -j DOCKER
done`

// dropAll and dockerRules are diffs of hosts: one that drops all, one with Docker.
const (
	dropAll = `
 -P INPUT ACCEPT
 -P FORWARD DROP
 -P OUTPUT ACCEPT
+-A FORWARD -s 10.1.0.0/24 -i obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -s 10.1.1.0/24 -d 10.1.0.0/24 -i obr0-t -o obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -d 10.1.0.0/24 -o obr0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment "ovs-gre:blue" -j ACCEPT
 -P INPUT ACCEPT
 -P FORWARD DROP
 -P OUTPUT ACCEPT
+-A FORWARD -s fd00:1::/64 -i obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -s fd00:2::/64 -d fd00:1::/64 -i obr0-t -o obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -d fd00:1::/64 -o obr0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment "ovs-gre:blue" -j ACCEPT
`
	dockerRules = `
 -P INPUT ACCEPT
 -P FORWARD DROP
 -P OUTPUT ACCEPT
 -N DOCKER
 -N DOCKER-USER
 -A FORWARD -j DOCKER-USER
 -A FORWARD -j DOCKER
 -A DOCKER -i docker0 -m comment --comment ovs-gre -j ACCEPT
+-A DOCKER-USER -s 10.1.0.0/24 -i obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A DOCKER-USER -s 10.1.1.0/24 -d 10.1.0.0/24 -i obr0-t -o obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A DOCKER-USER -d 10.1.0.0/24 -o obr0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment "ovs-gre:blue" -j ACCEPT
 -A DOCKER-USER -j RETURN
`
)

// hosts are the ways in which a host drops what it forwards: how it comes to,
// what it then lists with our accepts (- without, + with), how.
var hosts = []struct{ name, setup, list, diff string }{
	{"iptables-nft", "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP; iptables -A FORWARD -i eth7 -o eth8 -j ACCEPT", "iptables -S; ip6tables -S",
		strings.Replace(dropAll, "ACCEPT\n+", "ACCEPT\n -A FORWARD -i eth7 -o eth8 -j ACCEPT\n+", 1)},
	{"Docker", docker, "iptables -S", dockerRules},
	{"DOCKER-USER that nothing leads to", docker + "; iptables -F FORWARD", "iptables -S", `
 -P INPUT ACCEPT
 -P FORWARD DROP
 -P OUTPUT ACCEPT
 -N DOCKER
 -N DOCKER-USER
+-A FORWARD -s 10.1.0.0/24 -i obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -s 10.1.1.0/24 -d 10.1.0.0/24 -i obr0-t -o obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -d 10.1.0.0/24 -o obr0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment "ovs-gre:blue" -j ACCEPT
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
 -A FORWARD -i eth7 -j ACCEPT
+-A FORWARD -s 10.1.0.0/24 -i obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -s 10.1.1.0/24 -d 10.1.0.0/24 -i obr0-t -o obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -d 10.1.0.0/24 -o obr0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment "ovs-gre:blue" -j ACCEPT
`},
	{"IPv6 alone", "ip6tables -P FORWARD DROP; iptables -P FORWARD ACCEPT", "iptables -S; ip6tables -S", `
 -P INPUT ACCEPT
 -P FORWARD ACCEPT
 -P OUTPUT ACCEPT
 -P INPUT ACCEPT
 -P FORWARD DROP
 -P OUTPUT ACCEPT
+-A FORWARD -s fd00:1::/64 -i obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -s fd00:2::/64 -d fd00:1::/64 -i obr0-t -o obr0 -m comment --comment "ovs-gre:blue" -j ACCEPT
+-A FORWARD -d fd00:1::/64 -o obr0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment "ovs-gre:blue" -j ACCEPT
`},
	{"nft", "nft 'table inet fw { chain forward { type filter hook forward priority 0; policy drop; ct state established accept; iifname \"eth*\" accept; }; chain input { type filter hook input priority 0; policy drop; }; }'", "nft -s list ruleset", `
 table inet fw {
 	chain forward {
 		type filter hook forward priority filter; policy drop;
 		ct state established accept
 		iifname "eth*" accept
+		iifname "obr0" ip saddr 10.1.0.0/24 counter accept comment "ovs-gre:blue"
+		iifname "obr0-t" oifname "obr0" ip saddr 10.1.1.0/24 ip daddr 10.1.0.0/24 counter accept comment "ovs-gre:blue"
+		oifname "obr0" ip daddr 10.1.0.0/24 ct state established,related counter accept comment "ovs-gre:blue"
+		oifname "obr0" ip daddr 10.1.0.0/24 ct status dnat counter accept comment "ovs-gre:blue"
+		iifname "obr0" ip6 saddr fd00:1::/64 counter accept comment "ovs-gre:blue"
+		iifname "obr0-t" oifname "obr0" ip6 saddr fd00:2::/64 ip6 daddr fd00:1::/64 counter accept comment "ovs-gre:blue"
+		oifname "obr0" ip6 daddr fd00:1::/64 ct state established,related counter accept comment "ovs-gre:blue"
+		oifname "obr0" ip6 daddr fd00:1::/64 ct status dnat counter accept comment "ovs-gre:blue"
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
 		ip saddr @s drop
+		iifname "obr0" ip saddr 10.1.0.0/24 counter accept comment "ovs-gre:blue"
+		iifname "obr0-t" oifname "obr0" ip saddr 10.1.1.0/24 ip daddr 10.1.0.0/24 counter accept comment "ovs-gre:blue"
+		oifname "obr0" ip daddr 10.1.0.0/24 ct state established,related counter accept comment "ovs-gre:blue"
+		oifname "obr0" ip daddr 10.1.0.0/24 ct status dnat counter accept comment "ovs-gre:blue"
 	}
 }
`},
	{"iptables-legacy", "iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP", "iptables-legacy -S; ip6tables-legacy -S", dropAll},
	{"Docker with iptables-legacy", strings.NewReplacer("iptables ", "iptables-legacy ", "ip6tables;", "ip6tables-legacy;").Replace(docker), "iptables-legacy -S", dockerRules},
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
			b, want := NewBackend("blue"), wanted(blueAccepts...)
			if diff := cmp.Diff(pick(h.diff, " "), sh(t, h.list)); diff != "" {
				t.Fatalf("before (-want +got):\n%s", diff)
			}
			if got := drift(t, b, want); !strings.Contains(got, "drops it") {
				t.Errorf("before: %q", got)
			}
			ensure(t, b, want)
			if diff := cmp.Diff(pick(h.diff, " +"), sh(t, h.list)); diff != "" {
				t.Errorf("ensured (-want +got):\n%s", diff)
			}
			if got := drift(t, b, want); got != "" {
				t.Errorf("ensured: %s", got)
			}
			if err := b.Apply(t.Context(), state.Diff(want, nil)); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(pick(h.diff, " +"), sh(t, h.list)); diff != "" {
				t.Errorf("applied again (-want +got):\n%s", diff)
			}

			// Another network's rules and the other plugin's are none of this one's.
			more, routes := NewBackend("bluer"), NewRoutesBackend("blue")
			extra := state.Forward{Network: "blue", Routes: true, Out: "eth5", In: "eth6", From: "10.8.0.0/24,10.9.0.0/24", To: "10.1.0.0/24"}
			ensure(t, more, wanted(bluerAccepts...))
			ensure(t, routes, wanted(extra))
			for _, b := range []*Backend{b, more, routes} {
				set := map[*Backend]state.Set{b: want, more: wanted(bluerAccepts...), routes: wanted(extra)}[b]
				if got := drift(t, b, set); got != "" {
					t.Errorf("%s, %t: drift beside others: %s", b.network, b.routes, got)
				}
			}
			prune(t, more, nil)
			prune(t, routes, nil)
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
	const one = "-s 10.1.0.0/24 -i obr0 -m comment --comment ovs-gre:blue"
	nft := "nft replace rule inet fw forward handle $(nft -a list ruleset | awk '/iifname \"obr0\" ip saddr/ { print $NF }') "
	for _, tt := range []struct{ name, setup, script string }{
		{"iptables -F", hosts[0].setup, "iptables -F"},
		{"one rule", hosts[0].setup, "iptables -D FORWARD " + one + " -j ACCEPT"},
		{"one family", hosts[0].setup, "ip6tables -F"},
		{"another verdict", hosts[0].setup, "iptables -R FORWARD 2 " + one + " -j RETURN"},
		{"another condition", hosts[0].setup, "iptables -R FORWARD 2 -p tcp " + one + " -j ACCEPT"},
		{"negated", hosts[0].setup, "iptables -R FORWARD 2 ! " + one + " -j ACCEPT"},
		{"another subnet", hosts[0].setup, "iptables -R FORWARD 2 -s 10.1.0.0/25 -i obr0 -m comment --comment ovs-gre:blue -j ACCEPT"},
		{"a prefix of the name", hosts[0].setup, "iptables -R FORWARD 2 -s 10.1.0.0/24 -i obr0+ -m comment --comment ovs-gre:blue -j ACCEPT"},
		{"other states", hosts[0].setup, "iptables -R FORWARD 4 -d 10.1.0.0/24 -o obr0 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment ovs-gre:blue -j ACCEPT"},
		{"a rule of before", hosts[0].setup, "iptables -F; for f in -i -o; do for d in obr0 obr0-t; do iptables -I FORWARD $f $d -m comment --comment ovs-gre:blue -j ACCEPT; done; done"},
		{"behind what rejects", hosts[0].setup, "iptables -I FORWARD 2 -j REJECT"},
		{"DOCKER-USER flushed", docker, "iptables -F DOCKER-USER"},
		{"Docker's FORWARD flushed", docker, "iptables -F FORWARD"},
		{"Docker started later", "true", docker},
		{"in DOCKER-USER behind its end", docker, "iptables -I DOCKER-USER -j RETURN"},
		{"nft chain flushed", hosts[5].setup, "nft flush ruleset; " + hosts[5].setup},
		{"nft, another condition", hosts[5].setup, nft + "meta mark 7 iifname obr0 ip saddr 10.1.0.0/24 accept comment '\"ovs-gre:blue\"'"},
		{"nft, a limit", hosts[5].setup, nft + "limit rate 1/second iifname obr0 ip saddr 10.1.0.0/24 accept comment '\"ovs-gre:blue\"'"},
		{"nft, a set", hosts[5].setup, nft + "'iifname { obr0, obr1 }' ip saddr 10.1.0.0/24 accept comment '\"ovs-gre:blue\"'"},
		{"legacy, all names that begin so", hosts[7].setup, "iptables-legacy -R FORWARD 1 -s 10.1.0.0/24 -i obr0+ -m comment --comment ovs-gre:blue -j ACCEPT"},
		{"legacy flushed", hosts[7].setup, "iptables-legacy -F FORWARD"},
		{"legacy, another condition", hosts[7].setup, "iptables-legacy -R FORWARD 1 ! " + one + " -j ACCEPT"},
		{"legacy, behind what rejects", hosts[7].setup, "iptables-legacy -I FORWARD -j REJECT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newHost(t, tt.setup)
			b, want := NewBackend("blue"), wanted(blueAccepts...)
			ensure(t, b, want)
			sh(t, tt.script)
			if got := drift(t, b, want); !strings.Contains(got, "drops it") {
				t.Errorf("drift is %q", got)
			}
			ensure(t, b, want)
			prune(t, b, want) // what is nothing that is wanted
			if got := drift(t, b, want); got != "" {
				t.Errorf("mended: %s\n%s", got, sh(t, "iptables -S"))
			}
			prune(t, b, nil)
			all := sh(t, "nft list ruleset; for i in iptables ip6tables iptables-legacy ip6tables-legacy; do $i -S; done 2>&1")
			if strings.Contains(all, "obr") {
				t.Errorf("left over:\n%s", all)
			}
		})
	}
}

// Where nothing drops what we forward, nothing is made.
func TestForwardAccepting(t *testing.T) {
	for _, setup := range []string{
		"true",
		"iptables -P FORWARD ACCEPT",
		"iptables-legacy -P FORWARD ACCEPT",
		"iptables -P FORWARD DROP; ip6tables -P FORWARD DROP; iptables -A FORWARD -j ACCEPT; ip6tables -A FORWARD ! -i eth9 -j ACCEPT",
		"nft 'table inet fw { chain forward { type filter hook forward priority 0; policy accept; ct state invalid drop; iifname != { \"obr*\" } oifname != { obr0, obr1 } drop; }; }'",
		"nft 'table inet fw { chain forward { type filter hook forward priority 0; policy drop; meta nfproto vmap { ipv4 : jump every, ipv6 : accept }; }; chain every { accept; }; }'",
		// Docker's own, about its own.
		"nft 'table ip docker-bridges { chain filter-FORWARD { type filter hook forward priority 0; oifname vmap { br0 : jump in }; }; chain in { iifname br0 accept; counter drop comment \"UNPUBLISHED PORT DROP\"; }; }'",
	} {
		t.Run(setup, func(t *testing.T) {
			newHost(t, setup)
			list := "nft list ruleset; iptables-legacy -S 2>&1"
			before := sh(t, list)
			b, want := NewBackend("blue"), wanted(blueAccepts...)
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
	ensure(t, b, wanted(blueAccepts...))
	sh(t, "iptables -P FORWARD ACCEPT; ip6tables -P FORWARD ACCEPT; iptables -F FORWARD")
	if got := drift(t, b, nil); !strings.Contains(got, "accept rule ovs-gre:blue is left over") {
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
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	if _, err := in.Write([]byte("add table inet fw { flags owner; }\nadd chain inet fw forward { type filter hook forward priority 0; policy drop; }\n")); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); !strings.Contains(listing(t), "drop"); time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // a poll with a limit
		if time.Since(start) > 5*time.Second {
			lacks(t, "this nft has no flags owner")
		}
	}
	err = NewBackend("blue").Apply(t.Context(), []state.Change{{New: outward}})
	if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "flags owner") {
		t.Errorf("error is %v", err)
	}
}

// Neither observing nor mending iptables-nft's chains starts a process.
func TestForwardStartsNoProcess(t *testing.T) {
	newHost(t, docker)
	b, want := NewBackend("blue"), wanted(append(blueAccepts, blue)...)
	path := os.Getenv("PATH")
	t.Setenv("PATH", t.TempDir())
	lookIn = nil
	t.Cleanup(func() { lookIn = sbin })
	ensure(t, b, want)
	if got := drift(t, b, want); got != "" {
		t.Error(got)
	}
	if _, err := runIPTables(context.Background(), 2, "-S"); !errors.Is(err, errNoProgram) {
		t.Errorf("there is an iptables to start: %v", err)
	}
	t.Setenv("PATH", path)
	// iptables takes our rules for its own: it finds them by what it would make.
	for _, rule := range strings.Split(strings.TrimSpace(sh(t, "iptables -S DOCKER-USER | grep ovs-gre:blue; ip6tables -S DOCKER-USER | grep ovs-gre:blue | sed 's/^/6/'")), "\n") {
		program := "iptables"
		if args, v6 := strings.CutPrefix(rule, "6"); v6 {
			program, rule = "ip6tables", args
		}
		sh(t, program+" "+strings.Replace(rule, "-A", "-D", 1))
	}
	if got := sh(t, "iptables -S; ip6tables -S"); strings.Contains(got, "obr") {
		t.Errorf("iptables has not deleted:\n%s", got)
	}
}

func TestSavedForm(t *testing.T) {
	const out = `-P FORWARD DROP
-N DOCKER-USER
-A FORWARD -s 10.0.0.0/8 -i a -m comment --comment "ovs-gre:x" -j ACCEPT
-A FORWARD -m comment --comment plain -o b -j ACCEPT
-A FORWARD -i c -m socket -j ACCEPT
-A FORWARD ! -i d -j ACCEPT
-A FORWARD -i e -p tcp -m tcp --dport 80 -j ACCEPT
-A FORWARD -m comment --comment "a \"b\" -j c" -j LOG --log-prefix "-i f "
-A DOCKER-USER -j RETURN
`
	s := newRuleset(nil)
	g := s.load(2, "filter", "FORWARD", out)
	c, _ := s.chain(g.chainID)
	if !g.drops || c.name != "FORWARD" {
		t.Errorf("chain %s, drops %t", c.name, g.drops)
	}
	var got []string
	for i := range c.rules {
		got = append(got, c.rules[i].form().String())
	}
	want := []string{
		"-i a -s 10.0.0.0/8 --comment ovs-gre:x -j ACCEPT",
		"-o b --comment plain -j ACCEPT",
		"-i c … -j ACCEPT",
		"-i d … -j ACCEPT",
		"-i e … -j ACCEPT",
		`--comment "a \"b\" -j c" -j LOG`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}
