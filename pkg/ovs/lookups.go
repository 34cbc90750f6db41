package ovs

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// A Lookup is what became of packets in a datapath since it was made. Missed
// counts those that its flows did not know, Lost those of them that no thread
// of ovs-vswitchd took.
type Lookup struct {
	// Name is the datapath's: system@ovs-system, netdev@ovs-netdev.
	Name              string
	Hit, Missed, Lost uint64
}

var lookupLine = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`lookups: hit:(\d+) missed:(\d+) lost:(\d+)`)
})

// Lookups asks the ovs-vswitchd that serves the database behind socket about
// its datapaths (dpctl/show in ovs-vswitchd(8)).
func Lookups(ctx context.Context, socket string) ([]Lookup, error) {
	c, err := DialControl(ctx, socket)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	text, err := c.Call(ctx, "dpctl/show")
	if err != nil {
		return nil, err
	}
	return lookups(text), nil
}

func lookups(show string) []Lookup {
	var list []Lookup
	name := ""
	for line := range strings.Lines(show) {
		if head, ok := strings.CutSuffix(strings.TrimRight(line, "\n"), ":"); ok && !strings.HasPrefix(line, " ") {
			name = head
		}
		if m := lookupLine().FindStringSubmatch(line); m != nil {
			l := Lookup{Name: name}
			l.Hit, _ = strconv.ParseUint(m[1], 10, 64)
			l.Missed, _ = strconv.ParseUint(m[2], 10, 64)
			l.Lost, _ = strconv.ParseUint(m[3], 10, 64)
			list = append(list, l)
		}
	}
	return list
}
