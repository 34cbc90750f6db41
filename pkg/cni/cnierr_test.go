package cni_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/containernetworking/cni/pkg/types"

	"ovs-gre-cni/pkg/cni"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/state"
)

// TestLength: a message is short, whatever there is to say, and nothing is lost.
func TestLength(t *testing.T) {
	problem := func(i int) error {
		return fmt.Errorf("%w: nodes[%d].address \"10.0.0.%d\": is another node's, too", fault.ErrForeign, i, i)
	}
	var many []error
	for i := range 500 {
		many = append(many, problem(i))
	}
	long := fmt.Errorf("%w: bridge obr0 is in the way: %s", fault.ErrForeign, strings.Repeat("ä", 4000))
	for _, c := range []struct {
		err  error
		says string
	}{
		{problem(7), "not ours: nodes[7].address \"10.0.0.7\": is another node's, too"},
		{errors.Join(problem(1), problem(1), problem(2)), "nodes[2]"},
		{errors.Join(many...), "; and 495 more in details"},
		{long, "not ours: bridge obr0 is in the way: "},
		{errors.Join(long, problem(1)), "…; and 1 more in details"},
		{state.DriftOfTexts("a", "b"), "a (and 1 more)"},
	} {
		for _, from := range []func(error) error{cni.From, cni.FromStatus} {
			var e *types.Error
			if !errors.As(from(c.err), &e) {
				t.Fatal(c.err)
			}
			if utf8.RuneCountInString(e.Msg) > 400 || !strings.Contains(e.Msg, c.says) {
				t.Errorf("%d characters: %s", utf8.RuneCountInString(e.Msg), e.Msg)
			}
			for line := range strings.Lines(c.err.Error()) {
				if all := e.Msg + e.Details; !strings.Contains(all, strings.TrimSpace(line)) {
					t.Errorf("%s is lost", line[:50])
				}
			}
		}
	}
}
