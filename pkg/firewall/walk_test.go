package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

func cidrList(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// fates is what the base chains at forward do with a packet: "drop by …", "perhaps
// by …", or "".
func fates(t *testing.T, p Packet) string {
	t.Helper()
	var list []string
	look := func(s *ruleset, bases []baseChain) {
		for _, g := range bases {
			if !g.sees(p.IPv6) {
				continue
			}
			ft, err := s.outcomeAt(g, &p, "")
			if err != nil {
				t.Fatal(err)
			}
			switch d := ft.drop(); {
			case d == nil:
			case d.Sure && d.Doubt:
				list = append(list, "drop unless: "+d.By)
			case d.Sure:
				list = append(list, "drop: "+d.By)
			case d.Part:
				list = append(list, "part: "+d.By)
			default:
				list = append(list, "perhaps: "+d.By)
			}
		}
	}
	if err := read(t.Context(), func(r *reader) error {
		list = nil
		s := newRuleset(r)
		bases, err := s.baseChains(unix.NF_INET_FORWARD, func(chain) bool { return true })
		look(s, bases)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s := newRuleset(nil)
	bases, err := s.legacyBaseChains(t.Context(), "filter", "FORWARD")
	if err != nil {
		t.Fatal(err)
	}
	look(s, bases)
	return strings.Join(list, "; ")
}

// The packet of these tests comes from a peer's container to one of ours.
var peers4 = Packet{In: "obr0-t", Out: "obr0", From: cidrList("10.1.1.0/24", "10.1.2.0/24"), To: cidrList("10.1.0.0/24")}

func TestFateNFT(t *testing.T) {
	newNetns(t, "nft", "ip")
	sh(t, "ip link add obr0 type veth peer name obr1")
	known, translated, gre, udp := peers4, peers4, peers4, peers4
	known.State, translated.State = Answer, Translated
	gre.Proto = unix.IPPROTO_GRE
	udp.Proto, udp.Port = unix.IPPROTO_UDP, 4789
	outside := Packet{In: "obr0", From: cidrList("10.1.0.0/24")}
	six := Packet{IPv6: true, In: "obr0-t", Out: "obr0", From: cidrList("fd00:2::/64"), To: cidrList("fd00:1::/64")}
	for _, tt := range []struct {
		rules string // of a chain whose policy is accept
		p     Packet
		want  string // what decides, or ""
	}{
		{"drop", peers4, "drop 1"},
		{"counter reject with icmpx admin-prohibited", peers4, "drop 1"},
		{"accept; drop", peers4, ""},
		{"return; drop", peers4, ""},
		// Links.
		{"iifname obr0-t drop", peers4, "drop 1"},
		{"iifname obr0 drop", peers4, ""},
		{"oifname obr0 drop", peers4, "drop 1"},
		{"iifname \"obr0*\" oifname \"ob*\" drop", peers4, "drop 1"},
		{"iifname \"eth*\" drop", peers4, ""},
		{"iifname != obr0-t drop", peers4, ""},
		{"oif obr0 drop", peers4, "drop 1"},
		{"oif obr1 drop", peers4, ""},
		{"oif != obr0 drop", peers4, ""},
		{"iifname { eth0, obr0-t } drop", peers4, "drop 1"},
		{"iifname != { br0, eth9 } drop", peers4, "drop 1"},
		{"iifname != { br0, obr0-t } drop", peers4, ""},
		{"iifname { eth0, \"obr*\" } oifname { \"a*\", \"obr*\" } drop", peers4, "drop 1"},
		{"iifname . oifname { obr0-t . obr0 } drop", peers4, "drop 1"},
		{"iifname . oifname { obr0-t . obr1, eth0 . obr0 } drop", peers4, ""},
		{"oifname vmap { br0 : accept, obr0 : drop }", peers4, "drop 1"},
		{"oifname vmap { br0 : drop, obr1 : drop }", peers4, ""},
		{"oifname vmap { obr0 : jump one }", peers4, "drop one 2"},
		{"oifname vmap { obr0 : goto two }; drop", peers4, ""},
		{"oifname obr0 jump two; drop", peers4, "drop 2"},
		{"meta iifgroup 7 drop", peers4, "perhaps 1"},
		// A link that no rule names.
		{"oifname eth0 drop", outside, "part 1"},
		{"oifname != obr0 drop", outside, "drop 1"},
		{"oifname { eth0, obr0 } drop", outside, "part 1"},
		{"oifname != { eth0, obr0 } drop", outside, "drop 1"},
		{"oifname vmap { eth0 : drop, obr0 : accept }", outside, "part 1"},
		// Addresses.
		{"ip saddr 10.1.0.0/16 drop", peers4, "drop 1"},
		{"ip saddr 10.1.1.0/24 drop", peers4, "part 1"},
		{"ip saddr 10.1.0.0/16 ip daddr 10.1.0.0/24 drop", peers4, "drop 1"},
		{"ip saddr 10.1.1.7 ip daddr 10.1.0.9 drop", peers4, "part 1"}, // one comparison of 8 bytes
		{"ip saddr 10.1.1.7 ip daddr 10.1.9.9 drop", peers4, ""},
		{"ip saddr 10.0.0.0/8 ip daddr != 10.1.0.0/25 drop", peers4, "part 1"},
		{"ip saddr 10.1.1.0-10.1.2.255 drop", peers4, "drop 1"},
		{"ip saddr 10.1.1.9-10.1.2.255 drop", peers4, "part 1"},
		{"ip saddr >= 10.1.1.0 drop", peers4, "drop 1"},
		{"ip saddr < 10.1.1.0 drop", peers4, ""},
		{"ip saddr != 10.0.0.0/8 drop", peers4, ""},
		{"ip saddr { 10.1.1.0/24, 10.1.2.0/24 } drop", peers4, "drop 1"},
		{"ip saddr { 10.1.1.0/25, 10.1.1.128-10.1.3.0 } drop", peers4, "drop 1"},
		{"ip saddr { 10.1.1.1, 10.1.9.0/24 } drop", peers4, "part 1"},
		{"ip saddr != { 10.0.0.0/8 } drop", peers4, ""},
		{"ip saddr { 224.0.0.0/3 } drop", peers4, ""},
		{"ip saddr & 0.0.0.1 == 1 drop", peers4, "perhaps 1"},
		{"ip saddr . ip daddr { 10.1.0.0/16 . 10.1.0.0/16 } drop", peers4, "drop 1"},
		{"ip saddr . ip daddr { 10.1.0.0/16 . 10.2.0.0/16 } drop", peers4, ""},
		{"ip saddr . tcp dport { 10.1.0.0/16 . 80 } drop", peers4, "part 1"},
		{"ip daddr vmap { 10.1.0.0/24 : drop, 10.1.9.0/24 : accept }", peers4, "drop 1"},
		{"ip daddr vmap { 10.1.0.0/25 : drop }", peers4, "part 1"},
		{"ip saddr @named drop", peers4, "drop 1"},
		{"ip6 saddr fd00::/16 drop", peers4, ""},
		{"ip saddr 10.0.0.0/8 drop; ip6 saddr fd00:2::/48 drop", six, "drop 2"},
		{"ip6 daddr { fd00:1::/65, fd00:1:0:0:8000::/65 } drop", six, "drop 1"},
		{"ip6 daddr fd00:1::1 drop", six, "part 1"},
		// Connections.
		{"ct state established,related accept; drop", peers4, "drop 2"},
		{"ct state established,related accept; drop", known, ""},
		{"ct state new drop", known, ""},
		{"ct state vmap { established : accept, related : accept, invalid : drop }; drop", known, ""},
		{"ct state vmap { established : accept, invalid : drop }", peers4, ""},
		{"ct state != { new } accept; drop", peers4, "drop 2"},
		{"ct status dnat accept; drop", translated, ""},
		{"ct status dnat accept; drop", peers4, "drop 2"},
		{"ct mark 7 drop", peers4, "perhaps 1"},
		// Protocols.
		{"meta l4proto gre drop", gre, "drop 1"},
		{"meta l4proto { tcp, gre } drop", gre, "drop 1"},
		{"meta l4proto != gre drop", gre, ""},
		{"udp dport 4789 drop", udp, "drop 1"},
		{"udp dport 6081 drop", udp, ""},
		{"udp dport { 80, 4000-5000 } drop", udp, "drop 1"},
		{"meta l4proto . th dport { udp . 4789 } drop", udp, "drop 1"},
		{"udp dport 4789 drop", peers4, "part 1"},
		{"meta nfproto ipv6 drop; meta protocol ip drop", peers4, "drop 2"},
		// What we cannot judge.
		{"meta mark 1 accept; drop", peers4, "drop unless 2"},
		{"meta mark != 1 drop", peers4, "perhaps 1"},
		{"meta mark set 1 counter log prefix \"x\" drop", peers4, "drop 1"},
		{"limit rate 1/second accept; drop", peers4, "drop unless 2"},
		{"fib saddr type local drop", peers4, "perhaps 1"},
		{"meta mark 1 jump one", peers4, "perhaps one 2"},
		{"ip saddr 10.1.1.7 jump one; drop", peers4, "drop 2"},
		{"ip option lsrr exists drop", peers4, "perhaps 1"},
	} {
		sh(t, "nft -f - <<'E'\nflush ruleset\ntable inet fw { set named { type ipv4_addr; flags interval; elements = { 10.1.1.0-10.1.2.255 }; };\nchain two { ip saddr 192.0.2.1 drop; return; drop; };\nchain one { jump two; drop; };\nchain f { type filter hook forward priority 0; "+tt.rules+"; }; }\nE")
		got := fates(t, tt.p)
		got = strings.NewReplacer(": rule ", " ", " of chain f of table inet fw", "").Replace(got)
		if i, rest, ok := strings.Cut(got, " of chain "); ok {
			kind, n, _ := strings.Cut(i, " ")
			got = kind + " " + strings.Fields(rest)[0] + " " + n
		}
		if i := strings.Index(got, " ("); i >= 0 {
			got = got[:i]
		}
		if got != tt.want {
			t.Errorf("%s\n\tgot %q, want %q", tt.rules, got, tt.want)
		}
	}
}

// Other versions of iptables ask for ports by a match of xtables.
func TestMatchPorts(t *testing.T) {
	udp := Packet{Proto: unix.IPPROTO_UDP, Port: 4789}
	// struct xt_udp and struct xt_tcp as the kernel tells them, padded to 8 bytes.
	ports := func(lo, hi uint16, rest ...byte) []byte {
		b := []byte{0, 0, 0xff, 0xff}
		b = binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(b, lo), hi)
		return append(append(b, rest...), make([]byte, 8-len(rest))...)
	}
	for _, tt := range []struct {
		name string
		info []byte
		want answer
	}{
		{"udp", ports(4789, 4789), yes},
		{"udp", ports(4000, 5000), yes},
		{"udp", ports(6081, 6081), no},
		{"udp", ports(4789, 4789, 2), no},
		{"udp", ports(6081, 6081, 2), yes},
		{"tcp", ports(4789, 4789), yes},
		{"tcp", ports(4789, 4789, 0, 0, 0, 2), no},
		{"tcp", ports(4789, 4789, 0, 2, 2, 0), perhaps},
		{"udp", []byte{0, 0}, perhaps},
	} {
		var data []byte
		for _, a := range []*nl.RtAttr{text(unix.NFTA_MATCH_NAME, tt.name), nl.NewRtAttr(unix.NFTA_MATCH_REV, make([]byte, 4)), nl.NewRtAttr(unix.NFTA_MATCH_INFO, tt.info)} {
			data = append(data, a.Serialize()...)
		}
		j := newJudge(&udp)
		j.match = yes
		if j.xtMatch(parse(data)); j.match != tt.want {
			t.Errorf("%s %x: %d, want %d", tt.name, tt.info, j.match, tt.want)
		}
	}
}

// A list of addresses that somebody blocks is not read to its end.
func TestFateLargeSet(t *testing.T) {
	newNetns(t, "nft")
	table := `table inet fw { set blocked { type ipv4_addr; elements = { ` + addresses(30000, "") + ` }; }
		map chosen { type ipv4_addr : verdict; elements = { ` + addresses(30000, " : accept") + ` }; }
		chain f { type filter hook forward priority 0; %s; }; }`
	for rules, want := range map[string]string{
		"ip saddr @blocked drop":                      "perhaps: rule 1",
		"ip saddr != @blocked drop":                   "perhaps: rule 1",
		"ip saddr @blocked drop; iifname obr0-t drop": "drop: rule 2",
		"ip saddr @blocked accept; drop":              "drop unless: rule 2",
		"ip saddr vmap @chosen; drop":                 "drop: rule 2",
	} {
		file := t.TempDir() + "/table"
		if err := os.WriteFile(file, fmt.Appendf(nil, "flush ruleset\n"+table, rules), 0o600); err != nil {
			t.Fatal(err)
		}
		sh(t, "nft -f "+file)
		if got := fates(t, peers4); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", rules, got, want)
		}
	}
}

// addresses are n elements of a set.
func addresses(n int, what string) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("11.%d.%d.1%s", i/250, i%250, what))
	}
	return strings.Join(list, ", ")
}

// The same rules of iptables-nft and iptables-legacy.
func TestFateIPTables(t *testing.T) {
	known := peers4
	known.State = Answer
	udp := peers4
	udp.Proto, udp.Port = unix.IPPROTO_UDP, 4789
	outside := Packet{In: "obr0", From: cidrList("10.1.0.0/24")}
	for _, variant := range []string{"nft", "legacy"} {
		newHost(t, "iptables-"+variant+" -S")
		for _, tt := range []struct {
			rules string // each with -A
			p     Packet
			want  string
		}{
			{"FORWARD -j DROP", peers4, "drop: rule 1"},
			{"FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; FORWARD -i lo -j ACCEPT; FORWARD -j REJECT --reject-with icmp-host-prohibited", peers4, "drop: rule 3"},
			{"FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; FORWARD -j REJECT", known, ""},
			{"FORWARD -m state --state ESTABLISHED -j ACCEPT; FORWARD -j REJECT", known, ""},
			{"FORWARD -m conntrack ! --ctstate INVALID,ESTABLISHED -j DROP", known, ""},
			{"FORWARD -m conntrack ! --ctstate INVALID,ESTABLISHED -j DROP", peers4, "drop: rule 1"},
			{"FORWARD -m conntrack --ctstatus SEEN_REPLY -j ACCEPT; FORWARD -j DROP", peers4, "drop"},
			{"FORWARD -i obr+ -o obr0 -j DROP", peers4, "drop: rule 1"},
			{"FORWARD ! -i br0 -o obr0 -j DROP", peers4, "drop: rule 1"},
			{"FORWARD ! -i obr0-t -o obr0 -j DROP", peers4, ""},
			{"FORWARD -i obr0 -j DROP", peers4, ""},
			{"FORWARD -s 10.1.0.0/16 -d 10.1.0.0/20 -j DROP", peers4, "drop: rule 1"},
			{"FORWARD -s 10.1.1.7 -j DROP", peers4, "part: rule 1"},
			{"FORWARD -s 10.1.1.0/24,10.1.9.0/24 -j DROP", peers4, "part: rule"},
			{"FORWARD ! -s 10.0.0.0/8 -j DROP", peers4, ""},
			{"FORWARD -p tcp --dport 80 -j DROP", peers4, "part: rule 1"},
			{"FORWARD -p udp --dport 4789 -j DROP", udp, "drop: rule 1"},
			{"FORWARD -p udp ! --dport 4789 -j DROP", udp, ""},
			{"FORWARD -p tcp -j DROP", udp, ""},
			{"FORWARD -m comment --comment 'a -j b' -j DROP", peers4, "drop: rule 1"},
			{"FORWARD -m mark --mark 1 -j ACCEPT; FORWARD -j DROP", peers4, "drop unless: rule 2"},
			{"FORWARD -m addrtype --src-type LOCAL -j DROP", peers4, "perhaps: rule 1"},
			{"FORWARD -j LOG --log-prefix '-j DROP'; FORWARD -j MARK --set-mark 1", peers4, ""},
			{"FORWARD -j one; one -s 192.0.2.1 -j DROP; one -j two; two -j RETURN; one -j DROP", peers4, "drop: rule 3 of chain one"},
			{"FORWARD -g one; FORWARD -j DROP; one -i eth0 -j DROP", peers4, ""},
			{"FORWARD -j one; FORWARD -j DROP; one -i eth0 -j DROP", peers4, "drop: rule 2 of chain FORWARD"},
			{"FORWARD -i obr0 ! -o obr0 -j ACCEPT; FORWARD -j DROP", outside, ""},
			{"FORWARD -o eth0 -j ACCEPT; FORWARD -j DROP", outside, "drop: rule 2"},
		} {
			script := ""
			for _, r := range strings.Split("-F; -X; -N one; -N two; "+strings.ReplaceAll("; "+tt.rules, "; ", "; -A ")[2:], "; ") {
				script += "iptables-" + variant + " " + r + "\n"
			}
			sh(t, script)
			if got := fates(t, tt.p); !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("%s: %s\n\tgot %q, want %q", variant, tt.rules, got, tt.want)
			}
		}
	}
}

// Where our rules stand: behind what an administrator has said, in front of
// what drops all.
func TestForwardPlace(t *testing.T) {
	for _, tt := range []struct {
		name, setup, list string
		// want: OURS stands for the rules that were made.
		want string
	}{
		{"policy, an administrator's drop", "iptables -P FORWARD DROP; iptables -A FORWARD -s 172.16.32.2 -j DROP", "iptables -S FORWARD",
			"-P FORWARD DROP\n-A FORWARD -s 172.16.32.2/32 -j DROP\nOURS\n"},
		{"Docker, an administrator's drop", docker + "; iptables -I DOCKER-USER -s 172.16.32.2 -j DROP", "iptables -S DOCKER-USER",
			"-N DOCKER-USER\n-A DOCKER-USER -s 172.16.32.2/32 -j DROP\nOURS\n-A DOCKER-USER -j RETURN\n"},
		{"RHEL", "iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables -A FORWARD -s 172.16.32.2 -j DROP; iptables -A FORWARD -j REJECT --reject-with icmp-host-prohibited", "iptables -S FORWARD",
			"-P FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A FORWARD -s 172.16.32.2/32 -j DROP\nOURS\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n"},
		{"RHEL, iptables-legacy", "iptables-legacy -A FORWARD -s 172.16.32.2 -j DROP; iptables-legacy -A FORWARD -j REJECT", "iptables-legacy -S FORWARD",
			"-P FORWARD ACCEPT\n-A FORWARD -s 172.16.32.2/32 -j DROP\nOURS\n-A FORWARD -j REJECT --reject-with icmp-port-unreachable\n"},
		{"a chain that rejects", "iptables -N RH; iptables -A FORWARD -j RH; iptables -A RH -s 172.16.32.2 -j DROP; iptables -A RH -j REJECT", "iptables -S RH",
			"-N RH\n-A RH -s 172.16.32.2/32 -j DROP\nOURS\n-A RH -j REJECT --reject-with icmp-port-unreachable\n"},
		{"behind isolated bridges", "iptables -P FORWARD DROP; iptables -N CNI-ISOLATION-STAGE-1; iptables -A FORWARD -j DOCKER-USER 2>/dev/null || iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER; iptables -A FORWARD -j CNI-ISOLATION-STAGE-1", "iptables -S FORWARD",
			"-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n-A FORWARD -j CNI-ISOLATION-STAGE-1\nOURS\n"},
		{"Docker's drop behind DOCKER-USER, policy ACCEPT", `for c in DOCKER DOCKER-USER DOCKER-FORWARD DOCKER-BRIDGE; do iptables -N $c; done
			iptables -A FORWARD -j DOCKER-USER; iptables -A FORWARD -j DOCKER-FORWARD; iptables -A DOCKER-FORWARD -j DOCKER-BRIDGE; iptables -A DOCKER-BRIDGE -o obr0 -j DOCKER
			iptables -A DOCKER ! -i obr0 -o obr0 -j DROP; iptables -A DOCKER-FORWARD -i obr0 -j ACCEPT`, "iptables -S DOCKER-USER", "-N DOCKER-USER\nOURS\n"},
		{"what drops all in DOCKER-USER", docker + "; iptables -F DOCKER-USER; iptables -A DOCKER-USER -m conntrack --ctstate INVALID -j DROP; iptables -A DOCKER-USER -j DROP", "iptables -S DOCKER-USER",
			"-N DOCKER-USER\n-A DOCKER-USER -m conntrack --ctstate INVALID -j DROP\nOURS\n-A DOCKER-USER -j DROP\n"},
		{"an administrator's drop of the network", docker + "; iptables -I DOCKER-USER -d 10.1.0.0/16 -j DROP; iptables -I DOCKER-USER -s 10.1.0.0/16 -j DROP", "iptables -S DOCKER-USER",
			"-N DOCKER-USER\n-A DOCKER-USER -s 10.1.0.0/16 -j DROP\n-A DOCKER-USER -d 10.1.0.0/16 -j DROP\n-A DOCKER-USER -j RETURN\n"},
		{"an administrator's drop of the link", "iptables -P FORWARD DROP; iptables -A FORWARD -i obr0 -j DROP; iptables -A FORWARD -o obr0 -j DROP", "iptables -S FORWARD",
			"-P FORWARD DROP\n-A FORWARD -i obr0 -j DROP\n-A FORWARD -o obr0 -j DROP\n"},
		{"in FORWARD behind DOCKER-USER", docker + "; iptables -A FORWARD -d 10.1.0.7 -j DROP; iptables -A FORWARD -s 10.1.0.9 -j DROP", "iptables -S FORWARD",
			"-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER\n-A FORWARD -d 10.1.0.7/32 -j DROP\n-A FORWARD -s 10.1.0.9/32 -j DROP\nOURS\n"},
		{"firewalld", firewalld, "nft -s list chain inet firewalld filter_FWD_public", "table inet firewalld {\n\tchain filter_FWD_public {\n\t\tip saddr 172.16.32.2 drop\nOURS\n\t\treject with icmpx admin-prohibited\n\t}\n}\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newHost(t, tt.setup)
			b, want := NewBackend("blue"), wanted(blueAccepts[:3]...)
			ensure(t, b, want)
			var got strings.Builder
			made := 0
			for line := range strings.Lines(sh(t, tt.list)) {
				if strings.Contains(line, "ovs-gre:blue") {
					if made++; made == 1 {
						got.WriteString("OURS\n")
					}
					continue
				}
				got.WriteString(line)
			}
			if diff := cmp.Diff(tt.want, got.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got := drift(t, b, want); got != "" {
				t.Errorf("ensured: %s", got)
			}
			prune(t, b, nil)
			if all := sh(t, "nft list ruleset; iptables-legacy -S 2>&1"); strings.Contains(all, "ovs-gre") {
				t.Errorf("left:\n%s", all)
			}
		})
	}
}

// firewalld's chains, as far as they concern what is forwarded (1.3).
const firewalld = `nft -f - <<'E'
table inet firewalld {
	chain filter_FORWARD {
		type filter hook forward priority filter + 10; policy accept;
		ct state { established, related } accept
		ct status dnat accept
		iifname "lo" accept
		ct state invalid drop
		ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24 } reject with icmpv6 addr-unreachable
		jump filter_FORWARD_ZONES
		reject with icmpx admin-prohibited
	}
	chain filter_FORWARD_ZONES {
		iifname "eth0" oifname "eth0" goto filter_FWD_internal
		iifname vmap { "eth8" : goto filter_FWD_internal, "eth9" : goto filter_FWD_internal }
		goto filter_FWD_public
	}
	chain filter_FWD_internal { accept; }
	chain filter_FWD_public {
		ip saddr 172.16.32.2 drop
		reject with icmpx admin-prohibited
	}
}
E`

// Docker's nftables backend: no rule of ours can mend it, and the error says so.
func TestForwardDockerNFT(t *testing.T) {
	newHost(t, `nft 'table ip docker-bridges { chain filter-FORWARD { type filter hook forward priority 0; oifname vmap { obr0 : jump in }; }; chain in { ct state established,related counter accept; iifname obr0 counter accept; counter drop comment "UNPUBLISHED PORT DROP"; }; }'`)
	before := listing(t)
	b, want := NewBackend("blue"), wanted(blueAccepts[:3]...)
	const by = `rule 3 of chain in of table ip docker-bridges (--comment "UNPUBLISHED PORT DROP" -j DROP) drops it`
	if got := drift(t, b, want); !strings.Contains(got, by) {
		t.Errorf("drift: %s", got)
	}
	have, err := b.Observe(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Apply(t.Context(), state.Diff(want, have)); err == nil || !strings.Contains(err.Error(), by) {
		t.Errorf("error: %v", err)
	}
	if diff := cmp.Diff(before, listing(t)); diff != "" {
		t.Errorf("changed: %s", diff)
	}
	// Without tunnels' packets by another link nothing is amiss: that nobody
	// may publish ports on Docker's bridge does not keep the network from working.
	if got := drift(t, b, wanted(blueAccepts[:2]...)); got != "" {
		t.Errorf("one segment: %s", got)
	}
}

// A stranger's connection that an administrator's drop, or the
// policy alone, has kept out stays out.
func TestForwardStranger(t *testing.T) {
	for _, setup := range []string{
		docker + "; iptables -I DOCKER-USER -s 192.0.2.2 -j DROP",
		docker,
		"iptables -P FORWARD DROP; ip6tables -P FORWARD DROP",
		"for i in iptables ip6tables; do $i -A FORWARD -j REJECT; done",
	} {
		container, other, world := newRouter(t)
		sh(t, setup)
		// The world holds the peer's container 10.1.1.2 too, as a tunnel would.
		b, want := NewBackend("blue"), wanted(forwardsOf("blue", "obr0", "eth0")...)
		ensure(t, b, want)
		for _, from := range []string{"192.0.2.2", "2001:db8::2"} {
			to := "10.1.0.2"
			if strings.Contains(from, ":") {
				to = "fd00:1::2"
			}
			if !unanswered(world+"env ", to) {
				t.Errorf("%s: a stranger's ping of %s is answered", setup, to)
			}
			if !unanswered(other, to) {
				t.Errorf("%s: the ping of %s by another link is answered", setup, to)
			}
		}
		peer := func(to, as string) bool {
			return answered(world+"ping -I "+as+" -n -c 1 -W 0.5 "+to+" && true ", to)
		}
		if !peer("10.1.0.2", "10.1.1.2") || !peer("fd00:1::2", "fd00:2::2") {
			t.Errorf("%s: a peer's container gets no answer", setup)
		}
		if want := strings.Contains(setup, "-s 192.0.2.2"); unanswered(container, "192.0.2.2") != want {
			t.Errorf("%s: a container's ping outward is unanswered: %t", setup, !want)
		}
		prune(t, b, nil)
	}
}
