package ovs

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// A Lookup is what became of packets in a datapath since it was made. Missed
// counts those that its flows did not know, Lost those of them that no thread
// of ovs-vswitchd took.
type Lookup struct {
	// Name is the datapath's: system@ovs-system, netdev@ovs-netdev.
	Name              string
	Hit, Missed, Lost uint64
}

// Lookups asks the ovs-vswitchd that serves the database behind socket about
// its datapaths (dpctl/show in ovs-vswitchd(8)).
func Lookups(ctx context.Context, socket string) ([]Lookup, error) {
	text, err := call(ctx, socket, "dpctl/show")
	return lookups(text), err
}

func lookups(show string) []Lookup {
	var list []Lookup
	name := ""
	for line := range strings.Lines(show) {
		if head, ok := strings.CutSuffix(strings.TrimRight(line, "\n"), ":"); ok && !strings.HasPrefix(line, " ") {
			name = head
		}
		if counts, ok := strings.CutPrefix(strings.TrimSpace(line), "lookups:"); ok {
			list = append(list, Lookup{name, field(counts, "hit:"), field(counts, "missed:"), field(counts, "lost:")})
		}
	}
	return list
}

// Upcalls returns the sums of Missed and Lost of all datapaths of this ovs-vswitchd.
func (c *Control) Upcalls(ctx context.Context) (missed, lost uint64, err error) {
	text, err := c.Call(ctx, "dpctl/show")
	if err != nil {
		return 0, 0, err
	}
	list := lookups(text)
	for _, l := range list {
		missed, lost = missed+l.Missed, lost+l.Lost
	}
	if len(list) == 0 && strings.TrimSpace(text) != "" {
		return 0, 0, fmt.Errorf("%w: dpctl/show of %s has no line of lookups", ErrRefused, c)
	}
	return missed, lost, nil
}

// Dropped counts the packets that the flows of a bridge with the action drop have
// dropped since they were made. A new bridge has no such flow.
func (c *Control) Dropped(ctx context.Context, bridge string) (packets uint64, err error) {
	text, err := c.Call(ctx, "bridge/dump-flows", bridge)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		// Table 254 is internal to OVS and does not count.
		if strings.HasSuffix(line, "actions=drop") && !strings.HasPrefix(line, "table_id=254,") {
			packets += field(line, "n_packets=")
		}
	}
	return packets, nil
}

// field is the number that follows name in text; 0 if there is none.
func field(text, name string) uint64 {
	_, rest, ok := strings.Cut(text, name)
	if !ok {
		return 0
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	n, _ := strconv.ParseUint(rest[:end], 10, 64)
	return n
}
