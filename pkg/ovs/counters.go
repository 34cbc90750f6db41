package ovs

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Upcalls counts, of all datapaths of this ovs-vswitchd since it began, the
// packets that none of their flows knew, and of those the ones that it did not
// take: they are lost. The counts are those of dpctl/show (ovs-appctl(8)).
func (c *Control) Upcalls(ctx context.Context) (missed, lost uint64, err error) {
	text, err := c.Call(ctx, "dpctl/show")
	if err != nil {
		return 0, 0, err
	}
	found := false
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "lookups:")
		if !ok {
			continue
		}
		found = true
		missed += field(rest, "missed:")
		lost += field(rest, "lost:")
	}
	if !found && strings.TrimSpace(text) != "" {
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
