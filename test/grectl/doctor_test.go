package grectl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/doctor"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// findings are what doctor says, and its exit code.
type findings struct {
	list []doctor.Finding
	code int
}

// see calls doctor on a host.
func see(t testing.TB, h *testnet.Host, env []string, files ...string) findings {
	t.Helper()
	cmd := h.Command(context.Background(), "/opt/cni/bin/ovs-grectl", append([]string{"doctor", "--output", "json"}, files...)...)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	begin := time.Now()
	err := cmd.Run()
	if d := time.Since(begin); d > 12*time.Second {
		t.Errorf("doctor took %v", d)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	f := findings{code: cmd.ProcessState.ExitCode()}
	if err := json.Unmarshal(out.Bytes(), &f.list); err != nil {
		t.Fatalf("%v: %s%s", err, out.String(), errs.String())
	}
	for _, x := range f.list {
		if x.Check == "" || x.Seen == "" || x.Level != doctor.OK && x.Level != doctor.Warn && x.Level != doctor.Fail {
			t.Errorf("half a finding: %+v", x)
		}
	}
	return f
}

// bad are the findings of a check that are not fine.
func (f findings) bad(check string) []doctor.Finding {
	var list []doctor.Finding
	for _, x := range f.list {
		if x.Check == check && x.Level != doctor.OK {
			list = append(list, x)
		}
	}
	return list
}

// fine fails the test for every finding that is a failure.
func (f findings) fine(t testing.TB) {
	t.Helper()
	for _, x := range f.list {
		if x.Level == doctor.Fail {
			t.Errorf("%+v", x)
		}
	}
	if !t.Failed() && f.code != 0 {
		t.Errorf("exit %d of %+v", f.code, f.list)
	}
}

// only is the one finding of a check that is not fine.
func (f findings) only(t testing.TB, check string) doctor.Finding {
	t.Helper()
	bad := f.bad(check)
	if len(bad) != 1 {
		t.Fatalf("%s: want one finding, got %+v\nof %+v", check, bad, f.list)
	}
	return bad[0]
}

// TestDoctor breaks one thing after the other on a host that is up: doctor sees
// it, and its own command mends it, or leads to what is another's to mend.
func TestDoctor(t *testing.T) {
	l := lab(t, 3, cnitest.Network{OVSGRE: cnitest.Conf{"ipMasq": true}})
	h := l.Hosts[0]
	upAll(t, l)
	port := cnitest.Add(t, h, "ovsnet", "c1").Result.Interfaces[1].Name
	f := see(t, h, nil)
	f.fine(t)
	if r := want(t, 0, h, "doctor"); strings.Contains(r.out, "\nok") || strings.HasPrefix(r.out, "ok") || !strings.Contains(r.out, "(-v lists them)") {
		t.Errorf("what is fine: %s", r.out)
	}
	if r := want(t, 0, h, "doctor", "-v"); strings.Count(r.out, "ok    ") < 20 {
		t.Errorf("-v: %s", r.out)
	}
	if !slices.ContainsFunc(f.list, func(x doctor.Finding) bool {
		return x.Check == "openvswitch" && strings.HasPrefix(x.Seen, "ovs-vswitchd (Open vSwitch) ")
	}) {
		t.Errorf("no version of OVS in %+v", f.list)
	}
	// What is not ours its owner mends; doctor's command only leads there.
	owner := map[string]string{
		"OVS ports": "ovs-vsctl del-port nosuchdev", "subnets": "ip link delete x0 || ip route del blackhole 192.168.3.128/25", "conflists": "rm /etc/cni/net.d/99-broken.conflist",
	}
	for i, b := range []struct {
		check, do, seen string
		level           doctor.Level
	}{
		{"forwarding", "sysctl -qw net.ipv4.ip_forward=0", "ip_forward", doctor.Fail},
		{"forwarding", "sysctl -qw net.ipv6.conf.all.forwarding=0", "forwarding", doctor.Fail},
		{"rp_filter", "sysctl -qw net.ipv4.conf." + h.UnderlayLink + ".rp_filter=1", "strict", doctor.Warn},
		{"rp_filter", "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf." + h.UnderlayLink + ".rp_filter=0", "all: 1", doctor.Warn},
		{"rp_filter", "sysctl -qw net.ipv4.conf.all.rp_filter=2", "of obr0 is loose", doctor.Warn},
		{"forward filter", "iptables -P FORWARD DROP; iptables -F FORWARD", "policy DROP", doctor.Fail},
		{"forward filter", "nft 'add table inet fw; add chain inet fw f { type filter hook forward priority 0; policy drop; }'", "policy DROP", doctor.Fail},
		{"forward filter", "iptables -F FORWARD; iptables -P FORWARD ACCEPT; iptables -A FORWARD -s 203.0.113.1 -j DROP; iptables -A FORWARD -j REJECT", "rule 2 of chain FORWARD of table ip filter (-j REJECT)", doctor.Fail},
		{"docker raw drop", "iptables -t raw -A PREROUTING -d 192.168.1.7/32 ! -i docker0 -j DROP", "192.168.1.7", doctor.Fail},
		{"docker raw drop", "nft 'add table ip dock; add chain ip dock raw { type filter hook prerouting priority raw; policy accept; }; add rule ip dock raw ip daddr 192.168.1.8 iifname != \"docker0\" counter drop'", "table ip dock", doctor.Fail},
		{"docker raw drop", "nft 'add table ip dock2; add chain ip dock2 raw { type filter hook prerouting priority raw; policy accept; }; add rule ip dock2 raw iifname != { br0, eth9 } ip daddr 192.168.1.9 counter drop'", "table ip dock2", doctor.Fail},
		{"OVS ports", "ovs-vsctl add-port obr0 nosuchdev 2>/dev/null", "nosuchdev", doctor.Warn},
		{"host state", "ovs-vsctl del-br obr0-t", "OVS bridge obr0-t is missing", doctor.Fail},
		{"host state", "ovs-vsctl set-fail-mode obr0 secure", "fail_mode is secure", doctor.Fail},
		{"host state", "ovs-ofctl del-flows obr0-t", "its flows: none", doctor.Fail},
		{"host state", "ovs-vsctl set-controller obr0 tcp:127.0.0.1:9", "it has a controller", doctor.Fail},
		{"containers", "ovs-vsctl del-port " + port, "OVS port " + port + " is missing", doctor.Fail},
		{"containers", "ip link set " + port + " down", "link " + port, doctor.Fail},
		{"host state", "nft delete table inet ovs-gre-ovsnet", "masquerade", doctor.Fail},
		{"leaked addresses", `printf 'gone\r\neth0' >/var/lib/cni/networks/ovsnet/192.168.1.77`, "192.168.1.77", doctor.Fail},
		{"subnets", "ip link add x0 type bridge; ip addr add 192.168.2.77/24 dev x0", "192.168.2.77/24", doctor.Fail},
		{"subnets", "ip route add blackhole 192.168.3.128/25", "192.168.3.0/24 of host3: this host has blackhole 192.168.3.128/25", doctor.Warn},
		{"conflists", "echo '{' >/etc/cni/net.d/99-broken.conflist", "99-broken.conflist", doctor.Fail},
		{"cniVersion", `mkdir -p /run/fake; printf '#!/bin/sh\necho containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1\n' >/run/fake/containerd; chmod +x /run/fake/containerd`, "containerd 1.6.20", doctor.Warn},
	} {
		h.Shell(t, b.do)
		env := []string{"PATH=/run/fake:/usr/sbin:/usr/bin:/sbin:/bin"}
		f := see(t, h, env)
		x := f.only(t, b.check)
		if i == 0 {
			if r := want(t, 1, h, "doctor"); !strings.HasPrefix(r.out, "FAIL") {
				t.Errorf("%s: findings are not first: %s", b.do, r.out)
			}
		}
		if x.Level != b.level || !strings.Contains(x.Seen, b.seen) || x.Command == "" || (f.code == 1) != (len(failures(f)) > 0) {
			t.Errorf("%s: exit %d, %+v", b.do, f.code, x)
		}
		h.Shell(t, "PATH=$PATH:/opt/cni/bin EDITOR=true\n"+x.Command+"\n"+owner[b.check])
		if left := see(t, h, env).bad(b.check); len(left) > 0 {
			t.Errorf("after %s: %+v", x.Command, left)
		}
	}
	see(t, h, nil).fine(t)
	h.Shell(t, "ip route add blackhole 192.168.3.0/24 metric 77") // ours goes before it
	if bad := see(t, h, nil).bad("subnets"); len(bad) > 0 {
		t.Errorf("a route of a higher metric: %+v", bad)
	}
}

func failures(f findings) []doctor.Finding {
	var list []doctor.Finding
	for _, x := range f.list {
		if x.Level == doctor.Fail {
			list = append(list, x)
		}
	}
	return list
}

// TestDoctorPeers breaks what is between hosts.
func TestDoctorPeers(t *testing.T) {
	l := lab(t, 3, cnitest.Network{})
	h, peer := l.Hosts[0], l.Hosts[1]
	// A network that nobody has used is nothing bad.
	f := see(t, h, nil)
	f.fine(t)
	if x := f.only(t, "host state"); x.Level != doctor.Warn || x.Command != "ovs-grectl up "+conflist {
		t.Errorf("%+v", x)
	}
	upAll(t, l)
	see(t, h, nil).fine(t)

	// A peer that is down altogether.
	l.Underlay.Shell(t, "ip link set host2 down")
	f = see(t, h, nil)
	if x := f.only(t, "peers"); x.Level != doctor.Fail || !strings.Contains(x.Seen, "host2") {
		t.Errorf("%+v", x)
	}
	if bad := f.bad("tunnels"); len(bad) > 0 {
		t.Errorf("the same said twice: %+v", bad)
	}
	l.Underlay.Shell(t, "ip link set host2 up")

	// A peer where the network is not up.
	want(t, 0, peer, "down")
	bad := see(t, h, nil).bad("tunnels")
	if len(bad) != 2 || !strings.Contains(bad[0].Seen, "192.168.2.1 of peer host2") || !strings.HasSuffix(bad[0].Command, "# on host2") {
		t.Fatalf("%+v", bad)
	}
	peer.Shell(t, "PATH=$PATH:/opt/cni/bin\n"+bad[0].Command)
	see(t, h, nil).fine(t)

	// A container that takes the gateway's address.
	c := cnitest.Add(t, h, "ovsnet", "c1")
	c.Shell(t, "ip addr add 192.168.1.1/32 dev eth0")
	x := see(t, h, nil).only(t, "gateway address")
	if mac := c.Result.Interfaces[2].Mac; !strings.Contains(x.Seen, mac) || !strings.Contains(h.Shell(t, x.Command), mac) {
		t.Errorf("%+v", x)
	}
	c.Shell(t, "ip addr del 192.168.1.1/32 dev eth0")
	see(t, h, nil).fine(t)
}

// TestDoctorPath: something on the way has less room than it says.
func TestDoctorPath(t *testing.T) {
	for v6, mtu := range map[bool]string{false: "1362", true: "1342"} {
		l := lab(t, 2, cnitest.Network{V6: v6})
		h := l.Hosts[0]
		upAll(t, l)
		see(t, h, nil).fine(t)
		l.Underlay.Shell(t, "ip link set host2 mtu 1400")
		x := see(t, h, nil).only(t, "path MTU")
		if !strings.Contains(x.Seen, "1500 bytes") || !strings.Contains(x.Seen, "1400 bytes do") || !strings.Contains(x.Command, mtu) {
			t.Errorf("%+v", x)
		}
		h.Shell(t, "PATH=$PATH:/opt/cni/bin\n"+x.Command)
		see(t, h, nil).fine(t)
		if got := h.Shell(t, "cat /proc/sys/net/ipv6/conf/obr0/mtu"); strings.TrimSpace(got) != mtu {
			t.Errorf("MTU of obr0: %s", got)
		}
	}
}

// TestDoctorOVS stops OVS's daemons, and loses the underlay's bridge.
func TestDoctorOVS(t *testing.T) {
	l := lab(t, 2, cnitest.Network{})
	h, ctx := l.Hosts[0], context.Background()
	upAll(t, l)
	for _, daemon := range []struct {
		seen        string
		stop, start func(context.Context) error
	}{
		{"ovs-vswitchd does not run", h.KillVswitchd, h.StartVswitchd},
		{"does not answer on its control socket", h.PauseVswitchd, h.ResumeVswitchd},
		{"db.sock", h.KillOVSDB, h.StartOVSDB},
	} {
		if err := daemon.stop(ctx); err != nil {
			t.Fatal(err)
		}
		// Nothing is amiss that up could mend, and up says what is.
		if r := ctl(t, h, "up"); r.code == 0 || !strings.Contains(r.err, daemon.seen) {
			t.Errorf("up: %+v", r)
		}
		if r := ctl(t, h, "status"); r.code == 0 || !strings.Contains(r.out+r.err, daemon.seen) {
			t.Errorf("status: %+v", r)
		}
		x := see(t, h, nil).only(t, "openvswitch")
		if x.Level != doctor.Fail || !strings.Contains(x.Seen, daemon.seen) || !strings.HasPrefix(x.Command, "systemctl restart openvswitch") {
			t.Errorf("%+v", x)
		}
		if err := daemon.start(ctx); err != nil {
			t.Fatal(err)
		}
		if bad := see(t, h, nil).bad("openvswitch"); len(bad) > 0 {
			t.Errorf("%+v", bad)
		}
	}
	if l.Datapath != testnet.DatapathNetdev {
		return
	}
	// The underlay's address on a link that is not OVS's.
	h.Shell(t, "ip link add x0 type bridge; ip link set x0 up; ip addr del "+h.Addr4.String()+"/24 dev br-phy; ip addr add "+h.Addr4.String()+"/24 dev x0")
	x := see(t, h, nil).only(t, "userspace underlay")
	if !strings.Contains(x.Seen, "x0") {
		t.Errorf("%+v", x)
	}
	h.Shell(t, "ip addr del "+h.Addr4.String()+"/24 dev x0; ip addr add "+h.Addr4.String()+"/24 dev br-phy")
	if bad := see(t, h, nil).bad("userspace underlay"); len(bad) > 0 {
		t.Errorf("with the address on br-phy: %+v", bad)
	}
}

// TestDoctorInput: on the kernel datapath tunnel packets pass the host's filter.
func TestDoctorInput(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 2, NoOVS: true, PluginDir: cnitest.BinDir(t)})
	h := l.Hosts[0]
	write := func(path string, n cnitest.Network) {
		t.Helper()
		n.OVSGRE["datapathType"] = "system"
		h.WriteFile(t, path, n.Conflist(l))
	}
	write("/run/gre.conflist", cnitest.Network{OVSGRE: cnitest.Conf{}})
	write("/run/vxlan.conflist", cnitest.Network{OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"type": "vxlan"}}})
	write("/run/gre6.conflist", cnitest.Network{V6: true, OVSGRE: cnitest.Conf{}})
	write("/run/psk.conflist", cnitest.Network{OVSGRE: cnitest.Conf{"tunnel": cnitest.Conf{"type": "gre", "ports": "peer",
		"options": cnitest.Conf{"psk": cnitest.Conf{"file": "/run/psk"}}}}})
	if x := see(t, h, nil, "/run/psk.conflist").only(t, "ipsec"); x.Level != doctor.Fail || !strings.Contains(x.Seen, "ovs-monitor-ipsec does not run") {
		t.Errorf("without IPsec's daemons: %+v", x) // that they are there test/kernel's TestIPsec sees
	}
	input := func(file string) []doctor.Finding { return see(t, h, nil, file).bad("tunnel input") }
	for _, b := range []struct {
		file, do, undo string
		level          doctor.Level // "" is fine
	}{
		{"gre", "iptables -A INPUT -p gre -j DROP", "iptables -F", doctor.Fail},
		{"gre", "iptables -A INPUT -p gre -j REJECT", "iptables -F", doctor.Fail},
		{"gre", "iptables -N fw; iptables -A INPUT -j fw; iptables -A fw -s 172.16.32.0/24 -p gre -j DROP", "iptables -F; iptables -X", doctor.Fail},
		{"gre", "iptables -A INPUT -s 172.16.33.0/24 -p gre -j DROP", "iptables -F", ""},
		{"gre", "iptables -A INPUT -i lo -j DROP; iptables -A INPUT -p udp --dport 4789 -j DROP", "iptables -F", ""},
		{"gre", "iptables -P INPUT DROP; iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT; iptables -A INPUT -i lo -j ACCEPT", "iptables -P INPUT ACCEPT; iptables -F", doctor.Fail},
		{"gre", "iptables -P INPUT DROP; iptables -A INPUT -m limit --limit 1/s -j ACCEPT", "iptables -P INPUT ACCEPT; iptables -F", doctor.Warn},
		{"gre", "iptables -P INPUT DROP; iptables -A INPUT -p gre -j ACCEPT", "iptables -P INPUT ACCEPT; iptables -F", ""},
		{"vxlan", "iptables -P INPUT DROP", "iptables -P INPUT ACCEPT; iptables -F", doctor.Fail},
		{"vxlan", "iptables -A INPUT -p udp --dport 4789 -j DROP", "iptables -F", doctor.Fail},
		{"vxlan", "iptables -A INPUT -p udp --dport 6081 -j DROP", "iptables -F", ""},
		{"gre6", "ip6tables -A INPUT -p gre -j DROP", "ip6tables -F", doctor.Fail},
		{"gre6", "iptables -A INPUT -p gre -j DROP", "iptables -F", ""},
		{"gre", "nft 'add table inet fw; add chain inet fw in { type filter hook input priority 0; policy drop; }; add rule inet fw in ct state established accept'", "nft delete table inet fw", doctor.Fail},
		{"vxlan", "nft 'add table inet fw; add chain inet fw in { type filter hook input priority 0; }; add rule inet fw in ip saddr 172.16.32.101 udp dport 4789 drop'", "nft delete table inet fw", doctor.Fail},
	} {
		h.Shell(t, b.do)
		bad := input("/run/" + b.file + ".conflist")
		switch {
		case b.level == "" && len(bad) > 0:
			t.Errorf("%s: %+v", b.do, bad)
		case b.level != "" && (len(bad) != 1 || bad[0].Level != b.level):
			t.Errorf("%s: want %s, got %+v", b.do, b.level, bad)
		case b.level != "":
			h.Shell(t, bad[0].Command)
			if left := input("/run/" + b.file + ".conflist"); len(left) > 0 {
				t.Errorf("%s: after %s: %+v", b.do, bad[0].Command, left)
			}
		}
		h.Shell(t, b.undo)
	}
}

// TestDoctorServices runs programs of the services' names, and reads the
// configuration that its own command writes.
func TestDoctorServices(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 2, NoOVS: true, PluginDir: cnitest.BinDir(t)})
	h := l.Hosts[0]
	cnitest.Network{}.Install(t, l)
	for _, check := range []string{"networkd", "firewalld"} {
		if bad := see(t, h, nil).bad(check); len(bad) > 0 {
			t.Errorf("%+v", bad)
		}
	}
	// The machine's own configuration must neither be seen nor changed.
	h.Shell(t, `for d in /etc/systemd /usr/lib/systemd; do if [ -d $d ]; then mount -t tmpfs tmpfs $d; fi; done`)
	for _, name := range []string{"systemd-networkd", "firewalld"} {
		h.Shell(t, `cp "$(command -v sleep)" /run/`+name+`; setsid /run/`+name+` 600 >/dev/null 2>&1 </dev/null &`)
		testnet.Eventually(t, longest, func() error {
			_, err := h.Output(context.Background(), "sh", "-c", "grep -qx "+name[:min(len(name), 15)]+" /proc/[0-9]*/comm")
			return err
		})
	}
	if x := see(t, h, nil).only(t, "firewalld"); x.Level != doctor.Warn || !strings.Contains(x.Command, "--add-interface=obr0 --add-interface=obr0-t") {
		t.Errorf("%+v", x)
	}
	x := see(t, h, nil).only(t, "networkd")
	command, restart, _ := strings.Cut(x.Command, " && systemctl ")
	if x.Level != doctor.Fail || restart != "restart systemd-networkd" {
		t.Errorf("%+v", x)
	}
	if _, err := h.Output(context.Background(), "test", "-d", "/etc/systemd"); err != nil {
		command = strings.ReplaceAll(command, "/etc/systemd", "/run/systemd") // a machine without systemd
	}
	h.Shell(t, "mkdir -p /run/systemd/networkd.conf.d; echo '[Network]\nManageForeignRoutes=no' >/run/systemd/networkd.conf.d/50-ovs-gre.conf")
	if x := see(t, h, nil).only(t, "networkd"); !strings.Contains(x.Seen, "ManageForeignRoutingPolicyRules") {
		t.Errorf("half a drop-in: %+v", x)
	}
	h.Shell(t, command)
	if bad := see(t, h, nil).bad("networkd"); len(bad) > 0 {
		t.Errorf("after %s: %+v", command, bad)
	}
	// The drop-in that we ship says the same.
	h.Shell(t, "rm /etc/systemd/networkd.conf.d/50-ovs-gre.conf || true")
	h.WriteFile(t, "/run/systemd/networkd.conf.d/50-ovs-gre.conf", shipped(t, "networkd.conf.d/50-ovs-gre.conf"))
	if bad := see(t, h, nil).bad("networkd"); len(bad) > 0 {
		t.Errorf("with the drop-in: %+v", bad)
	}
}

// TestDoctorConflists: what is wrong with files is a finding, each with its file.
func TestDoctorConflists(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 2, NoOVS: true, PluginDir: cnitest.BinDir(t)})
	h := l.Hosts[0]
	if x := see(t, h, nil).only(t, "conflists"); x.Level != doctor.Warn || !strings.Contains(x.Seen, "no conflist") {
		t.Errorf("%+v", x)
	}
	n := cnitest.Network{Chain: []cnitest.Conf{{"type": "nosuch"}}}
	n.Install(t, l)
	if x := see(t, h, nil).only(t, "plugins"); x.Level != doctor.Fail || !strings.Contains(x.Seen, `"nosuch"`) || !strings.Contains(x.Command, "/opt/cni/bin/nosuch") {
		t.Errorf("%+v", x)
	}
	if bad := see(t, h, []string{"CNI_PATH=/run"}).bad("plugins"); len(bad) != 3 {
		t.Errorf("%+v", bad)
	}
	other := cnitest.Network{Name: "other", OVSGRE: cnitest.Conf{"bridge": "obr9"}}
	h.WriteFile(t, "/etc/cni/net.d/20-other.conflist", other.Conflist(l))
	if x := see(t, h, nil).only(t, "subnets"); !strings.Contains(x.Seen, "in network ovsnet") || x.Network != "other" {
		t.Errorf("%+v", x)
	}
	h.WriteFile(t, "/etc/cni/net.d/20-other.conflist", `{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"ovs-gre","bridg":"obr0","nodes":[]}]}`)
	f := see(t, h, nil)
	bad := f.bad("conflists")
	if len(bad) != 2 || !strings.Contains(bad[0].Seen+bad[1].Seen, `did you mean "bridge"`) || f.code != 1 {
		t.Errorf("%+v", bad)
	}
	if r := want(t, 2, h, "plan"); !strings.Contains(r.err, "bridg") {
		t.Errorf("plan: %s", r.err)
	}
	h.WriteFile(t, "/etc/cni/net.d/20-other.conflist", `{"name":"other","plugins":[{"type":"ovs-gre"`)
	if x := see(t, h, nil).only(t, "conflists"); !strings.Contains(x.Seen, "20-other.conflist") {
		t.Errorf("%+v", x)
	}
	h.WriteFile(t, "/etc/cni/net.d/20-other.conflist", strings.ReplaceAll(other.Conflist(l), h.Addr4.String(), "172.16.99.1"))
	if x := see(t, h, nil, "/etc/cni/net.d/20-other.conflist").only(t, "nodes"); !strings.Contains(x.Seen, "no entry for this host") {
		t.Errorf("%+v", x)
	}
}
