package testnet

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Host is one simulated host. Its methods may be called from several goroutines. A Reboot
// kills the programs that run in it.
type Host struct {
	Name         string     // "host1", "host2" and so on
	Addr4, Addr6 netip.Addr // its addresses on the underlay
	// UnderlayLink is the link that has the addresses: eth0, or br-phy where
	// Open vSwitch runs on the userspace datapath.
	UnderlayLink string
	// Dir is the directory of this machine with the host's own directories, at the
	// paths that they have in the host. A Reboot keeps it.
	Dir string

	lab *Lab

	mu     sync.Mutex
	holder *holder // nil before boot and after halt
}

// disk lists the directories that each host has of its own; a reboot keeps them.
var disk = []string{
	"/etc/cni",
	"/opt/cni",
	"/var/lib/cni",
	"/var/lib/ovs-gre",
	"/etc/openvswitch",
	"/var/lib/openvswitch",
	"/var/log/openvswitch",
}

// bootScript runs in the new namespaces of a host. $1 is its Dir, $2 a
// directory for /opt/cni/bin or "", the others are disk and OwnDirs.
const bootScript = `
dir=$1 plugins=$2
shift 2
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 1777 /run/lock
mkdir /run/netns /run/openvswitch
for d; do mount --bind "$dir$d" "$d"; done
if [ "$plugins" ]; then
	mount --bind "$plugins" /opt/cni/bin
	mount -o remount,bind,ro /opt/cni/bin
fi
mount --bind "$dir/boot_id" /proc/sys/kernel/random/boot_id
sed "s/^btime .*/btime $(($(date +%s) + 1))/" /proc/stat >"$dir/stat"
mount --bind "$dir/stat" /proc/stat
ip link set lo up
for f in all default; do echo 0 >/proc/sys/net/ipv6/conf/$f/accept_dad; done
`

// boot makes the host's namespaces, plugs it into the underlay and starts
// Open vSwitch if so wished.
func (h *Host) boot(ctx context.Context, ovs bool) error {
	own := slices.Concat(disk, h.lab.opts.OwnDirs)
	for _, d := range own {
		if err := os.MkdirAll(h.Dir+d, 0o755); err != nil {
			return err
		}
		// A place to mount it on; the machine need not have it.
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(h.Dir+"/opt/cni/bin", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(h.Dir+"/boot_id", []byte(uuid()+"\n"), 0o444); err != nil {
		return err
	}
	plugins := h.lab.opts.PluginDir
	if plugins != "" {
		var err error
		if plugins, err = filepath.Abs(plugins); err != nil {
			return err
		}
	}
	holder, err := hold(ctx, bootScript, holderCommand, append([]string{h.Dir, plugins}, own...)...)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.holder = holder
	h.mu.Unlock()
	if err := h.plug(ctx); err != nil {
		return err
	}
	if ovs {
		return h.StartOVS(ctx)
	}
	return nil
}

// uuid is a new random UUID, as the kernel makes them for a boot.
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// halt ends the host like a power failure.
func (h *Host) halt() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holder != nil {
		h.holder.halt()
		h.holder = nil
	}
}

// Reboot ends everything that runs in the host, without warning, and starts
// it again: same name, addresses and directories on disk, another boot id and
// time of boot, an empty /run, no containers, links or rules. Open vSwitch, if it was running,
// starts over the kept database, and its bridges come back as Open vSwitch
// makes them: down and without addresses.
func (h *Host) Reboot(ctx context.Context) error {
	ovs := h.running(ovsdbServer)
	h.halt()
	// The kernel removes the links of a dead namespace some time later.
	if err := h.unplug(ctx); err != nil {
		return err
	}
	h.UnderlayLink = "eth0"
	if err := h.boot(ctx, ovs); err != nil {
		return fmt.Errorf("%s: reboot: %w", h.Name, err)
	}
	return h.pingAll(ctx)
}

// PID is the process id, on this machine, of the host's init: all of the
// host's namespaces are in /proc/PID/ns, its root is /proc/PID/root. It is
// another one after a Reboot, and 0 when the lab is closed.
func (h *Host) PID() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holder == nil {
		return 0
	}
	return h.holder.pid()
}

// Command implements Runner.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return enter(ctx, h.PID(), "", name, args)
}

// Output implements Runner.
func (h *Host) Output(ctx context.Context, name string, args ...string) (string, error) {
	return output(h.Command(ctx, name, args...), name, args)
}

// Run implements Runner.
func (h *Host) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	return run(t, h, h.Name, name, args)
}

// Shell implements Runner.
func (h *Host) Shell(t testing.TB, script string) string {
	t.Helper()
	return h.Run(t, "sh", "-ec", script)
}

// script runs a shell script of the lab's own.
func (h *Host) script(ctx context.Context, text string, args ...string) error {
	cmd := h.Command(ctx, "sh", append([]string{"-ec", text, "testnet"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// WriteFile writes a file, whose path is as seen in the host, and makes the
// directories above it.
func (h *Host) WriteFile(t testing.TB, path string, data string) {
	t.Helper()
	// By a program inside: outside, a link such as /var/run leads elsewhere.
	cmd := h.Command(context.Background(), "sh", "-ec", `mkdir -p "$(dirname "$1")"; cat >"$1"`, "testnet", path)
	cmd.Stdin = strings.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: write %s: %v: %s", h.Name, path, err, out)
	}
}

// file is the path, on this machine, of a file in the host. No part of the
// host's path may be a link.
func (h *Host) file(path string) string {
	return "/proc/" + strconv.Itoa(h.PID()) + "/root" + path
}
