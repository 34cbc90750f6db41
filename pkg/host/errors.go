package host

import (
	"errors"
	"fmt"

	"ovs-gre-cni/pkg/state"
)

// What can be wrong with a host. Package cnierr gives each its CNI code.
var (
	// ErrForeign is wrapped by errors about something in the way that is not ours.
	ErrForeign = errors.New("not ours")
	// ErrUnavailable is wrapped by errors that time may mend: OVS does not run,
	// does not answer, does not do what OVSDB says.
	ErrUnavailable = errors.New("OVS is not available")
	// ErrBusy is wrapped by errors about a lock of ours that was not to be had
	// in time.
	ErrBusy = errors.New("busy")
	// ErrRefused is wrapped by errors about what OVS was asked and will not do.
	ErrRefused = errors.New("OVS refused")
	// ErrEnvironment is wrapped by errors about the runtime's environment variables.
	ErrEnvironment = errors.New("invalid environment")
	// ErrNetns is wrapped by errors about a container's network namespace that
	// cannot be opened or is none.
	ErrNetns = errors.New("network namespace")
	// ErrLimited is wrapped by errors of STATUS where containers that are
	// attached have less than they should.
	ErrLimited = errors.New("existing containers may be limited")
	// ErrDrift is wrapped by errors about a host or container that is not as it should be.
	ErrDrift = errors.New("not as it should be")
)

// A Difference is one thing that is not as it should be.
type Difference struct {
	// Text is what is wrong, in one sentence.
	Text string
	// Command makes the thing as it should be, by hand; "" where none does.
	Command string
}

// String is the difference with its command.
func (d Difference) String() string {
	if d.Command == "" {
		return d.Text
	}
	return d.Text + "; by hand: " + d.Command
}

// A Drift says what is not as it should be. It wraps ErrDrift.
type Drift []Difference

// Drifted is the Drift of texts without commands.
func Drifted(texts ...string) Drift {
	d := make(Drift, len(texts))
	for i, t := range texts {
		d[i].Text = t
	}
	return d
}

// Lacking is the Drift of those of changes that are not about what is left over,
// which harms no container; nil where there are none.
func Lacking(changes []state.Change) Drift {
	var d Drift
	for _, c := range changes {
		if c.New != nil {
			d = append(d, Difference{c.Drift(), c.Command()})
		}
	}
	return d
}

func (d Drift) Error() string {
	switch len(d) {
	case 0:
		return ErrDrift.Error()
	case 1:
		return d[0].Text
	}
	return fmt.Sprintf("%s (and %d more)", d[0].Text, len(d)-1)
}

// Unwrap returns ErrDrift.
func (d Drift) Unwrap() error { return ErrDrift }
