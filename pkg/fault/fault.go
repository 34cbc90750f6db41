// Package fault has the errors about a host and its containers that packages of
// several floors return. Package cni gives each its CNI error code.
package fault

import "errors"

var (
	// ErrForeign is wrapped by errors about an object of the host that this
	// network needs the name, address or place of, and that does not belong to it.
	ErrForeign = errors.New("not ours")
	// ErrUnavailable is wrapped by errors that may pass without anybody's help:
	// OVS does not run, does not answer, or has not applied what OVSDB says.
	ErrUnavailable = errors.New("OVS is not available")
	// ErrBusy is wrapped by errors about a lock that another call held for longer
	// than this call waits.
	ErrBusy = errors.New("busy")
	// ErrRefused is wrapped by errors about a change that OVS refuses to make.
	ErrRefused = errors.New("OVS refused")
	// ErrEnvironment is wrapped by errors about the runtime's environment variables.
	ErrEnvironment = errors.New("invalid environment")
	// ErrNetns is wrapped by errors about a path that is no network namespace or
	// cannot be opened.
	ErrNetns = errors.New("network namespace")
	// ErrLimited is wrapped by errors of STATUS where attached containers have
	// less connectivity than they should.
	ErrLimited = errors.New("existing containers may be limited")
	// ErrDrift is wrapped by errors about a host or container that differs from
	// what its configuration wants.
	ErrDrift = errors.New("not as it should be")
)
