package state

import (
	"fmt"

	"ovs-gre-cni/pkg/fault"
)

// A Difference is one difference between the host or a container and what is wanted.
type Difference struct {
	// Text describes the difference in one sentence.
	Text string
	// Command is the shell command that mends it; "" means that none does.
	Command string
}

// String is the difference with its command.
func (d Difference) String() string {
	if d.Command == "" {
		return d.Text
	}
	return d.Text + "; by hand: " + d.Command
}

// A Drift is the error that lists differences. It wraps fault.ErrDrift.
type Drift []Difference

// DriftOfTexts returns the Drift of differences without commands.
func DriftOfTexts(texts ...string) Drift {
	d := make(Drift, len(texts))
	for i, t := range texts {
		d[i].Text = t
	}
	return d
}

// DriftOf is the Drift of those of changes that are not about what is left over,
// which harms no container; nil where there are none. What many have in common
// is one Difference.
func DriftOf(changes []Change) Drift {
	var d Drift
	for _, g := range Groups(creationsAndUpdates(changes)) {
		cmd := g.Changes[0].Command()
		if more := len(g.Changes) - 1; more > 0 {
			cmd += fmt.Sprintf("  # and %d more: ovs-grectl plan has them", more)
		}
		d = append(d, Difference{g.Text, cmd})
	}
	return d
}

func (d Drift) Error() string {
	switch len(d) {
	case 0:
		return fault.ErrDrift.Error()
	case 1:
		return d[0].Text
	}
	return fmt.Sprintf("%s (and %d more)", d[0].Text, len(d)-1)
}

// Unwrap returns ErrDrift.
func (d Drift) Unwrap() error { return fault.ErrDrift }
