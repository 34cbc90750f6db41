package conformance

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// look prints what a host has, and what of it is in a container. It leaves out
// what changes by itself: carrier, counters, the state of an IPv6 address that
// the kernel is still looking at, anycast addresses, which come with
// forwarding, and host-local's lock and memory of the last address.
const look = `
calm() { sed 's/NO-CARRIER,//; s/,LOWER_UP//; s/ state [A-Z]*//; s/ linkdown//; s/ tentative//; s/ valid_lft .*//; s/@if[0-9]*:/:/; s/ link-netns[a-z]* [^ ]*//'; }
some() { sort | sed "s/^/$1 /"; }
ip -o link | grep -v ': ovs-netdev:' | calm | some link
ip -o address | grep -v ' ovs-netdev ' | calm | some address
ip route show table all | grep -v '^anycast\| dev ovs-netdev ' | calm | some route
ip -6 route show table all | grep -v '^anycast\| dev ovs-netdev ' | calm | some route
{ ip rule; ip -6 rule; } | some rule
ip neigh show nud permanent | sed 's/\( lladdr [^ ]*\)*\( managed extern_learn\).*/\2/' | some neighbour
nft --stateless list ruleset | some nft
[ ! -e /run/ovs-gre ] || find /run/ovs-gre ! -path '/run/ovs-gre/*/*' -printf '%p\n' -o -type f -printf '%p %s\n' | some run
[ ! -e /var/lib/cni ] || find /var/lib/cni -type f ! -name lock ! -name 'last_reserved_ip*' -printf '%p %s\n' | some cni
for n; do
	[ -e "/run/netns/$n" ] || continue
	{ ip -n "$n" -o link; ip -n "$n" -o address; ip -n "$n" route; ip -n "$n" -6 route; } | calm | some "container $n"
done
if [ -S /run/openvswitch/db.sock ]; then
	echo ovsdb
	ovsdb-client --timeout=30 --format=json dump unix:/run/openvswitch/db.sock Open_vSwitch
fi
`

// columns of OVSDB that are somebody's doing; the rest is what ovs-vswitchd
// says of itself.
var columns = map[string][]string{
	"Bridge":       {"_uuid", "name", "ports", "datapath_type", "external_ids", "other_config", "fail_mode", "controller", "mirrors", "protocols"},
	"Port":         {"_uuid", "name", "interfaces", "tag", "trunks", "vlan_mode", "protected", "external_ids", "other_config", "qos"},
	"Interface":    {"_uuid", "name", "type", "options", "external_ids", "other_config", "mac", "mtu_request", "bfd"},
	"Open_vSwitch": {"_uuid", "bridges", "external_ids", "other_config", "manager_options"},
}

// A snapshot is everything of a host that could leak, a line each.
type snapshot []string

// snapshot looks at the host and the containers of these boxes.
func (t *try) snapshot(boxes ...*box) (snapshot, error) {
	args := []string{"-c", look, "look"}
	for _, b := range boxes {
		args = append(args, strings.TrimPrefix(b.netns, netnsDir))
	}
	out, err := t.host.Output(t.ctx, "sh", args...)
	if err != nil {
		return nil, err
	}
	text, db, _ := strings.Cut(out, "ovsdb\n")
	var s snapshot
	for line := range strings.Lines(text) {
		s = append(s, strings.TrimRight(line, " \n"))
	}
	rows, err := rows(db)
	return append(s, rows...), err
}

// rows are OVSDB's, a line each.
func rows(dump string) (lines []string, err error) {
	for dec := json.NewDecoder(strings.NewReader(dump)); dec.More(); {
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
			line := "ovsdb " + name
			for i, h := range table.Headings {
				if slices.Contains(columns[name], h) {
					line += " " + h + "=" + string(row[i])
				}
			}
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines, nil
}

// differs says what a host has gained and lost.
func (s snapshot) differs(now snapshot) error {
	var changes []string
	for _, l := range now {
		if !slices.Contains(s, l) {
			changes = append(changes, "more: "+short(l))
		}
	}
	for _, l := range s {
		if !slices.Contains(now, l) {
			changes = append(changes, "less: "+short(l))
		}
	}
	if len(changes) == 0 {
		return nil
	}
	if len(changes) > 6 {
		changes = append(changes[:6], fmt.Sprintf("and %d more", len(changes)-6))
	}
	return fmt.Errorf("the host is not as before: %s", strings.Join(changes, "; "))
}

// same waits until host and boxes are as they were: the kernel and
// ovs-vswitchd take things away in their own time.
func (t *try) same(was snapshot, boxes ...*box) error {
	return t.eventually(func() error {
		now, err := t.snapshot(boxes...)
		if err != nil {
			return err
		}
		return was.differs(now)
	})
}

// steady waits until two snapshots in a row are the same, and returns it.
func (t *try) steady(boxes ...*box) (snapshot, error) {
	was, err := t.snapshot(boxes...)
	if err != nil {
		return nil, err
	}
	err = t.eventually(func() error {
		now, err := t.snapshot(boxes...)
		if err != nil {
			return err
		}
		d := was.differs(now)
		was = now
		return d
	})
	return was, err
}

// patience bounds every wait.
const patience = 10 * time.Second

// eventually calls f until it returns nil, or for as long as patience lasts.
func (t *try) eventually(f func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(patience)
	for {
		err := f()
		if err == nil || t.ctx.Err() != nil || time.Now().After(end) {
			return err
		}
		<-tick.C
	}
}
