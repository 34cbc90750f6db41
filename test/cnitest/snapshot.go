package cnitest

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/testnet"
)

// A Snapshot is everything of a host that could leak, a line each, sorted
// within its section.
type Snapshot map[string][]string

// look prints the sections of a snapshot. Where OVSDB does not run, its section
// is missing.
const look = `
part() { echo "== $1"; }
part link;     ip -j link
part addr;     ip -j addr
part route;    ip -j -4 route show table all; ip -j -6 route show table all
part rule;     ip -j -4 rule; ip -j -6 rule
part neigh;    ip -j neigh show nud permanent
part nft;      nft list ruleset
part run;      [ ! -e /run/ovs-gre ] || find /run/ovs-gre ! '(' -path '/run/ovs-gre/*/*' -type d -empty ')' -printf '%y %p %l\n'
part cni;      find /var/lib/cni -mindepth 1 ! -name 'last_reserved_ip.*' ! -name lock ! -type d -printf '%y %p %l\n'
part netns;    for n in /run/netns/*; do [ ! -e "$n" ] || { echo "${n##*/}"; ip -n "${n##*/}" -br link | awk '{ print $1, $3 }'; }; done
part ovsdb;    [ ! -S /run/openvswitch/db.sock ] || ovsdb-client -t 20 -f json dump unix:/run/openvswitch/db.sock Open_vSwitch
`

// columns of OVSDB that are somebody's doing; the rest are counters and what
// ovs-vswitchd says of itself.
var columns = map[string][]string{
	"Bridge":       {"_uuid", "name", "ports", "datapath_type", "external_ids", "other_config", "fail_mode", "controller", "mirrors", "netflow", "flood_vlans", "protocols", "stp_enable"},
	"Port":         {"_uuid", "name", "interfaces", "tag", "trunks", "vlan_mode", "protected", "external_ids", "other_config", "qos"},
	"Interface":    {"_uuid", "name", "type", "options", "external_ids", "other_config", "mac", "mtu_request", "ofport_request", "bfd"},
	"Open_vSwitch": {"_uuid", "bridges", "external_ids", "other_config", "manager_options"},
}

var (
	// What time alone changes in the kernel's answers, and a restart of
	// ovs-vswitchd's userspace datapath.
	fleeting = map[string]bool{"valid_life_time": true, "preferred_life_time": true, "expires": true, "operstate": true, "tentative": true, "link_index": true, "ifindex": true}
	// A datapath's own links: they come with its first use and stay.
	datapaths = regexp.MustCompile(`^(ovs-(netdev|system)|(gre|gretap|erspan|ip6gre|ip6tnl|sit|tunl)0|(gre|ip6gre|vxlan|genev)_sys.*)$`)
	counters  = regexp.MustCompile(`packets \d+ bytes \d+`)
)

// Look takes a snapshot of a host.
func Look(h *testnet.Host) (Snapshot, error) {
	out, err := h.Output(context.Background(), "sh", "-ec", look)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	s := Snapshot{}
	for part := range strings.SplitSeq("\n"+out, "\n== ") { // nft has == within lines
		name, body, _ := strings.Cut(part, "\n")
		if name == "" {
			continue
		}
		s[name] = nil
		var lines []string
		switch name {
		case "ovsdb":
			lines, err = rows(body)
		case "link", "addr", "route", "rule", "neigh":
			lines, err = objects(body)
		case "nft":
			for table := range strings.SplitSeq("\n"+counters.ReplaceAllString(body, "packets N bytes N"), "\ntable ") {
				lines = append(lines, strings.Join(strings.Fields(table), " "))
			}
		default:
			lines = slices.Collect(strings.Lines(body))
		}
		if err != nil {
			return nil, fmt.Errorf("snapshot: %s: %w", name, err)
		}
		for _, l := range lines {
			s[name] = append(s[name], strings.TrimRight(l, "\n"))
		}
		if name != "netns" {
			slices.Sort(s[name])
		}
	}
	return s, nil
}

// objects are the entries of iproute2's JSON lists, a line each.
func objects(body string) (lines []string, err error) {
	for dec := json.NewDecoder(strings.NewReader(body)); dec.More(); {
		var list []any
		if err := dec.Decode(&list); err != nil {
			return nil, err
		}
		for _, o := range list {
			m, _ := o.(map[string]any)
			if m["type"] == "anycast" {
				continue // the kernel's own, with the sysctl forwarding, which a host keeps
			}
			if _, ok := m["managed"]; ok { // a neighbour that the kernel asks for: the answers are its own
				delete(m, "lladdr")
				delete(m, "state")
			}
			link, _ := m["ifname"].(string)
			dev, _ := m["dev"].(string)
			if datapaths.MatchString(link + dev) {
				continue
			}
			forget(o)
			raw, err := json.Marshal(o)
			if err != nil {
				return nil, err
			}
			lines = append(lines, string(raw))
		}
	}
	return lines, nil
}

// forget drops what is fleeting, wherever it is.
func forget(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			forget(e)
		}
	case map[string]any:
		for k, e := range v {
			if fleeting[k] {
				delete(v, k)
			}
			forget(e)
		}
	}
}

// rows are OVSDB's, a line each.
func rows(body string) (lines []string, err error) {
	for dec := json.NewDecoder(strings.NewReader(body)); dec.More(); {
		var table struct {
			Caption  string              `json:"caption"`
			Headings []string            `json:"headings"`
			Data     [][]json.RawMessage `json:"data"`
		}
		if err := dec.Decode(&table); err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(table.Caption, " table")
		for _, row := range table.Data {
			line := name
			for i, h := range table.Headings {
				if c, ok := columns[name]; !ok && h == "_uuid" || slices.Contains(c, h) {
					line += " " + h + "=" + string(row[i])
				}
			}
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// Left is what differs now from the snapshot before, or nil.
func (before Snapshot) Left(h *testnet.Host) error {
	after, err := Look(h)
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, name := range []string{"link", "addr", "route", "rule", "neigh", "nft", "run", "cni", "netns", "ovsdb"} {
		for _, l := range without(before[name], after[name]) {
			fmt.Fprintf(&text, "\n%s: lost: %s", name, short(l))
		}
		for _, l := range without(after[name], before[name]) {
			fmt.Fprintf(&text, "\n%s: left: %s", name, short(l))
		}
		if text.Len() == 0 && !slices.Equal(before[name], after[name]) {
			fmt.Fprintf(&text, "\n%s: %s", name, cmp.Diff(before[name], after[name]))
		}
	}
	if text.Len() > 0 {
		return fmt.Errorf("%s is not as before:%s", h.Name, text.String())
	}
	return nil
}

// without are the lines of a that b has not.
func without(a, b []string) []string {
	var lines []string
	for _, l := range a {
		if !slices.Contains(b, l) {
			lines = append(lines, l)
		}
	}
	return lines
}

// tentative prints the IPv6 addresses that the kernel is looking for elsewhere. It
// does so where a link has carrier.
const tentative = `ip -6 -o address show tentative -dadfailed | while read -r _ dev _ address _; do
	ip -o link show dev "$dev" | grep -q LOWER_UP && echo "$address dev $dev"
done; true`

// MustLook is Look for a test that an error ends. It waits until the kernel has
// found no IPv6 address elsewhere (duplicate address detection, about 2 s): an
// address gets its route in the table local only then.
func MustLook(t testing.TB, h *testnet.Host) Snapshot {
	t.Helper()
	testnet.Eventually(t, 15*time.Second, func() error {
		if out := h.Shell(t, tentative); strings.TrimSpace(out) != "" {
			return fmt.Errorf("%s: tentative: %s", h.Name, out)
		}
		return nil
	})
	s, err := Look(h)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Settled waits until the host is as before, and returns what is Left: what the
// kernel or ovs-vswitchd take away by themselves they take away in their own
// time.
func (before Snapshot) Settled(h *testnet.Host) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(15 * time.Second); ; <-tick.C {
		err := before.Left(h)
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// short cuts what does not help to find it.
func short(l string) string {
	for _, noise := range []string{`"broadcast":"ff:ff:ff:ff:ff:ff",`, `"group":"default",`, `["set",[]]`, `["map",[]]`} {
		l = strings.ReplaceAll(l, noise, "")
	}
	if len(l) > 240 {
		l = l[:240] + "…"
	}
	return l
}
