package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrConfined is wrapped by errors about a process that cannot reach the host's
// network, such as a plugin of a rootless runtime.
var ErrConfined = errors.New("the host's network is out of reach")

// Confined returns why this process may not change the network namespace that it
// is in: it has no CAP_NET_ADMIN, or has it only in a user namespace of its own.
// The error wraps ErrConfined. It is nil where the process may, or the kernel
// does not tell.
func Confined() error {
	var data [2]unix.CapUserData
	err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0])
	if err == nil && data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return fmt.Errorf("%w: this process has no CAP_NET_ADMIN", ErrConfined)
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil
	}
	defer ns.Close()
	owner, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_USERNS)
	if errors.Is(err, unix.EPERM) { // ioctl_ns(2): the owner is a user namespace above ours
		return fmt.Errorf("%w: this process has CAP_NET_ADMIN only in a user namespace that does not own the network", ErrConfined)
	}
	if err == nil {
		_ = unix.Close(owner)
	}
	return nil
}

// InUserNamespace reports whether this process is in another user namespace than
// the initial one, which maps every id to itself (user_namespaces(7)).
func InUserNamespace() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !bytes.Equal(bytes.Join(bytes.Fields(ids), []byte(" ")), []byte("0 0 4294967295"))
}

// Rootless adds to an error about a host or an OVS that was not found that this
// process is in a user namespace, where neither can be found. The error wraps
// ErrConfined and err. Outside of a user namespace it is err itself; nil stays nil.
func Rootless(err error) error {
	if err == nil || !InUserNamespace() {
		return err
	}
	return fmt.Errorf("%w: this process is in a user namespace, as with a rootless runtime: %w", ErrConfined, err)
}
