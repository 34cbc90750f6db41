package testnet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The daemons of Open vSwitch, by the names of their pid files.
const (
	ovsdbServer = "ovsdb-server"
	vswitchd    = "ovs-vswitchd"
)

// StartOVS starts Open vSwitch where it does not run: its database, made if
// the host has none, and its switch.
func (h *Host) StartOVS(ctx context.Context) error {
	if err := h.StartOVSDB(ctx); err != nil {
		return err
	}
	return h.StartVswitchd(ctx)
}

// StopOVS ends Open vSwitch as a service manager would: bridges, their
// addresses and their ports stay in the kernel.
func (h *Host) StopOVS(ctx context.Context) error {
	return errors.Join(h.StopVswitchd(ctx), h.StopOVSDB(ctx))
}

// StartOVSDB starts ovsdb-server, if it does not run.
func (h *Host) StartOVSDB(ctx context.Context) error {
	if h.running(ovsdbServer) {
		return nil
	}
	return h.wrap("start ovsdb-server", h.script(ctx, `
[ -e /etc/openvswitch/conf.db ] || ovsdb-tool create /etc/openvswitch/conf.db
ovsdb-server /etc/openvswitch/conf.db -vconsole:off --remote=punix:/var/run/openvswitch/db.sock \
	--pidfile --detach --no-chdir --log-file
ovs-vsctl --timeout=30 --no-wait init
`))
}

// StopOVSDB ends ovsdb-server with SIGTERM, and waits for its end.
func (h *Host) StopOVSDB(ctx context.Context) error { return h.end(ctx, ovsdbServer, syscall.SIGTERM) }

// KillOVSDB ends ovsdb-server with SIGKILL.
func (h *Host) KillOVSDB(ctx context.Context) error { return h.end(ctx, ovsdbServer, syscall.SIGKILL) }

// StartVswitchd starts ovs-vswitchd, if it does not run. On the userspace
// datapath it sees to br-phy, too.
func (h *Host) StartVswitchd(ctx context.Context) error {
	if h.running(vswitchd) {
		return nil
	}
	if h.lab.Datapath == DatapathSystem {
		if err := waitForCPUCount(ctx); err != nil {
			return h.wrap("start ovs-vswitchd", err)
		}
	}
	err := h.script(ctx, "ovs-vswitchd -vconsole:off --pidfile --detach --no-chdir --log-file")
	if err == nil && h.lab.Datapath == DatapathNetdev {
		err = h.adopt(ctx)
	}
	return h.wrap("start ovs-vswitchd", err)
}

// cpuCountDelay is how long after boot ovs-vswitchd 3.1.0 takes 0 processors for the
// truth (count_cpu_cores in lib/ovs-thread.c of OVS; mended in 3.1.1). On the
// kernel datapath it then starts no thread that takes upcalls, and no packet
// gets through. A VM of test/kernel has its first lab sooner.
const cpuCountDelay = 10 * time.Second

// waitForCPUCount waits until this machine is up for long enough.
func waitForCPUCount(ctx context.Context) error {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &up); err != nil {
		return err
	}
	select {
	case <-time.After(cpuCountDelay - time.Duration(up.Nano())):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for %v since boot: %w", cpuCountDelay, ctx.Err())
	}
}

// StopVswitchd ends ovs-vswitchd with SIGTERM, and waits for its end.
func (h *Host) StopVswitchd(ctx context.Context) error { return h.end(ctx, vswitchd, syscall.SIGTERM) }

// KillVswitchd ends ovs-vswitchd with SIGKILL.
func (h *Host) KillVswitchd(ctx context.Context) error { return h.end(ctx, vswitchd, syscall.SIGKILL) }

// PauseVswitchd stops ovs-vswitchd without ending it: it answers nobody.
func (h *Host) PauseVswitchd(ctx context.Context) error {
	return h.signal(ctx, vswitchd, syscall.SIGSTOP, func(s byte) bool { return s == 'T' })
}

// ResumeVswitchd lets a paused ovs-vswitchd go on.
func (h *Host) ResumeVswitchd(ctx context.Context) error {
	return h.signal(ctx, vswitchd, syscall.SIGCONT, func(s byte) bool { return s != 'T' })
}

// adoptScript lets Open vSwitch own eth0, the only way for its userspace
// datapath to send a tunnel's packets. The kernel's own stack would still eat
// all frames of eth0, and answer them: nftables drops them, behind the tap that
// Open vSwitch reads. $6 and $7 are eth0's MAC and MTU; pairs of an address
// and a MAC, the neighbours, follow: a tunnel to a neighbour that the userspace
// datapath does not know can stay silent for half a minute.
const adoptScript = `
ovs-vsctl --timeout=30 --may-exist add-br br-phy \
	-- set bridge br-phy datapath_type=netdev fail_mode=standalone "other_config:hwaddr=\"$6\"" \
	-- set interface br-phy "mtu_request=$7" \
	-- --may-exist add-port br-phy eth0
nft -f - <<.
add table netdev testnet
delete table netdev testnet
table netdev testnet { chain eth0 { type filter hook ingress device "eth0" priority 0; policy drop; }; }
.
echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6
ip address flush dev eth0
ip link set br-phy up
` + addressScript + `
shift 7
while [ $# -gt 0 ]; do
	ovs-appctl --timeout=30 tnl/neigh/set br-phy "$1" "$2" >/dev/null
	shift 2
done
`

func (h *Host) adopt(ctx context.Context) error {
	args := append(h.addressing("br-phy"), mac(h.Addr4), strconv.Itoa(h.lab.opts.UnderlayMTU))
	for _, o := range h.lab.Hosts {
		if o != h {
			args = append(args, o.Addr4.String(), mac(o.Addr4), o.Addr6.String(), mac(o.Addr4))
		}
	}
	if err := h.script(ctx, adoptScript, args...); err != nil {
		return fmt.Errorf("br-phy: %w", err)
	}
	h.UnderlayLink = "br-phy"
	return nil
}

// process is the process id, in the host, of a daemon, and its state.
func (h *Host) process(daemon string) (pid string, st byte, err error) {
	b, err := os.ReadFile(h.file("/run/openvswitch/" + daemon + ".pid"))
	if err != nil {
		return "", 0, err
	}
	pid = strings.TrimSpace(string(b))
	proc := "/proc/" + pid
	comm, err := os.ReadFile(h.file(proc + "/comm"))
	if err != nil {
		return "", 0, err
	}
	if strings.TrimSpace(string(comm)) != daemon {
		return "", 0, fmt.Errorf("%s: process %s is not %s: %w", h.Name, pid, daemon, os.ErrNotExist)
	}
	if b, err = os.ReadFile(h.file(proc + "/stat")); err != nil {
		return "", 0, err
	}
	return pid, state(b), nil
}

func (h *Host) running(daemon string) bool {
	_, _, err := h.process(daemon)
	return err == nil
}

// signal sends a signal and waits for the daemon's state to be as expected.
func (h *Host) signal(ctx context.Context, daemon string, sig syscall.Signal, want func(byte) bool) error {
	pid, _, err := h.process(daemon)
	if err == nil {
		err = h.script(ctx, `kill -"$1" "$2"`, strconv.Itoa(int(sig)), pid)
	}
	if err == nil {
		err = poll(ctx, waitTimeout, func() error {
			if _, st, err := h.process(daemon); err != nil || !want(st) {
				return errors.Join(fmt.Errorf("its state is %q", st), err)
			}
			return nil
		})
	}
	return h.wrap(sig.String()+" "+daemon, err)
}

// end ends a daemon, if it runs, and waits until it is gone.
func (h *Host) end(ctx context.Context, daemon string, sig syscall.Signal) error {
	pid, _, err := h.process(daemon)
	if err != nil {
		return nil // it does not run
	}
	err = h.script(ctx, `kill -"$1" "$2"`, strconv.Itoa(int(sig)), pid)
	if err == nil {
		err = poll(ctx, waitTimeout, func() error {
			if _, err := os.Stat(h.file("/proc/" + pid)); err == nil {
				return errors.New("it is still there")
			}
			return nil
		})
	}
	return h.wrap(sig.String()+" "+daemon, err)
}

// wrap names the host and what was done to it.
func (h *Host) wrap(what string, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %s: %w", h.Name, what, err)
	}
	return err
}

// dump logs what Open vSwitch on each host has and what it complained about.
func (l *Lab) dump(t testing.TB) {
	for _, h := range l.Hosts {
		out, _ := h.Output(context.Background(), "sh", "-c", `
[ -S /run/openvswitch/db.sock ] || exit
ovs-vsctl --timeout=5 show
tail -n 40 /var/log/openvswitch/*.log
ip address; ip route; ip -6 route`)
		if out != "" {
			t.Logf("%s:\n%s", h.Name, out)
		}
	}
}
