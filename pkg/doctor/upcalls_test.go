package doctor

import (
	"testing"

	"ovs-gre-cni/pkg/ovs"
)

// TestUpcalls: what gets lost now is worse than what was lost once, and little
// of that is nothing.
func TestUpcalls(t *testing.T) {
	for _, c := range []struct {
		missed, before, now uint64
		want                Level
	}{{1000, 0, 0, OK}, {1000, 9, 9, OK}, {1000, 20, 20, Warn}, {1000, 20, 21, Fail}, {10, 500, 0, OK}} {
		f := upcalls(ovs.Lookup{Name: "d", Missed: c.missed, Lost: c.before}, ovs.Lookup{Name: "d", Missed: c.missed, Lost: c.now})
		if f.Level != c.want || (f.Command == "") != (c.want == OK) {
			t.Errorf("%+v: %+v", c, f)
		}
	}
}

// TestFold: a few peers are told one by one, many at once.
func TestFold(t *testing.T) {
	var list []Finding
	for _, name := range []string{"a", "b", "c"} {
		list = append(list, fail("n", "", "peer %s is silent", name).each(name, "%s are silent"))
	}
	list = append(list, ok("n", "fine"))
	if have := fold(list); len(have) != 4 {
		t.Errorf("%+v", have)
	}
	list = append(list, fail("n", "", "peer d is silent").each("d", "%s are silent"), fail("m", "", "peer e is silent").each("e", "%s are silent"))
	have := fold(list)
	if len(have) != 3 || have[0].Seen != "4 peers (a, b and 2 more) are silent" || have[2].Seen != "peer e is silent" {
		t.Errorf("%+v", have)
	}
}
