package host

import (
	"errors"
	"fmt"
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

// A Drift says what is not as it should be, a line each. It wraps ErrDrift.
type Drift []string

func (d Drift) Error() string {
	switch len(d) {
	case 0:
		return ErrDrift.Error()
	case 1:
		return d[0]
	}
	return fmt.Sprintf("%s (and %d more)", d[0], len(d)-1)
}

// Unwrap returns ErrDrift.
func (d Drift) Unwrap() error { return ErrDrift }
