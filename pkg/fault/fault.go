// Package fault has the errors about a host and its containers that packages of
// several floors return. Package cni gives each its CNI error code.
package fault

import "errors"

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
