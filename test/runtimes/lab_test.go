package runtimes

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// patience bounds whatever a runtime does: a daemon comes up, a container
// starts, on a busy machine.
const patience = 2 * time.Minute

// image is the name of the image that every runtime gets.
const image = "docker.io/library/busybox:latest"

// serve is the command of a container that answers HTTP requests.
var serve = []string{"httpd", "-f", "-h", "/www"}

// ownDirs are where runtimes keep their data and configuration by default.
var ownDirs = []string{
	"/etc/containerd", "/var/lib/containerd", "/opt/containerd", "/etc/nerdctl", "/var/lib/nerdctl",
	"/etc/docker", "/var/lib/docker", "/var/lib/containers",
}

// lab starts two hosts on which every path of a runtime is the host's own, and
// on which ovs-gre writes down how it is called. There is an image in it, see
// imageFile.
func lab(t *testing.T) *testnet.Lab {
	t.Helper()
	dir, err := plugins()
	if err != nil {
		t.Fatal(err)
	}
	return labWith(t, testnet.Options{PluginDir: dir, OwnDirs: ownDirs})
}

func labWith(t *testing.T, o testnet.Options) *testnet.Lab {
	t.Helper()
	o.Hosts = 2
	l := testnet.New(t, o)
	if err := os.WriteFile(imageFile(l), cnitest.Image(t, image), 0o600); err != nil {
		t.Fatal(err)
	}
	return l
}

// imageFile is the path of the image, on every host.
func imageFile(l *testnet.Lab) string { return filepath.Join(l.Dir, "image.tar") }

// portmap publishes ports, as in the conflists that we ship.
var portmap = cnitest.Conf{"type": "portmap", "capabilities": cnitest.Conf{"portMappings": true}}

// twoNetworks are ovsnet, with published ports, and red, which containers may
// have beside it.
func twoNetworks(version string) (ovsnet, red cnitest.Network) {
	ovsnet = cnitest.Network{Version: version, Chain: []cnitest.Conf{portmap}, OVSGRE: cnitest.Conf{"ipMasq": true, "tunnel": cnitest.Conf{"key": 1}}}
	red = cnitest.Network{Name: "red", Version: version,
		Subnets: func(i int) []string { return []string{fmt.Sprintf("10.9.%d.0/24", i+1)} },
		OVSGRE:  cnitest.Conf{"bridge": "obr1", "isDefaultGateway": false, "tunnel": cnitest.Conf{"key": 2}}}
	return ovsnet, red
}

// primePortmap has portmap publish a port of nobody once, on every host: its
// three chains in iptables stay from then on. Nothing of ours is in this.
func primePortmap(t *testing.T, l *testnet.Lab) {
	t.Helper()
	for _, h := range l.Hosts {
		n := h.NewNetns(t, "nobody")
		conf := `{"cniVersion": "1.0.0", "name": "nobody", "type": "portmap",
			"runtimeConfig": {"portMappings": [{"hostPort": 9, "containerPort": 9, "protocol": "tcp"}]},
			"prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "` + n.Path + `"}],
				"ips": [{"interface": 0, "address": "192.0.2.2/24"}, {"interface": 0, "address": "2001:db8::2/64"}]}}`
		for _, verb := range []string{"ADD", "DEL"} {
			if _, err := cnitest.Plugin(h, "portmap", verb, conf, "CNI_CONTAINERID=nobody", "CNI_IFNAME=eth0", "CNI_NETNS="+n.Path); err != nil {
				t.Fatalf("%s: portmap %s: %v", h.Name, verb, err)
			}
		}
		n.Delete(t)
	}
}

// look takes a snapshot of each host of a lab.
func look(t *testing.T, l *testnet.Lab) []cnitest.Snapshot {
	t.Helper()
	var list []cnitest.Snapshot
	for _, h := range l.Hosts {
		list = append(list, cnitest.MustLook(t, h))
	}
	return list
}

// nothingLeft wants the hosts to be as they were.
func nothingLeft(t *testing.T, l *testnet.Lab, before []cnitest.Snapshot) {
	t.Helper()
	for i, h := range l.Hosts {
		if err := before[i].Settled(h); err != nil {
			t.Error(err)
		}
	}
}

// output runs a program on a host, which is looked for in path, as are those
// that it starts.
func output(h *testnet.Host, path, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := h.Command(ctx, name, args...)
	cmd.Env = []string{"HOME=/root", "PATH=" + path}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %s %s: %w\n%s%s", h.Name, name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// A shell runs a script in a container.
type shell func(script string) (string, error)

// addrs are the container's global addresses of a link.
func (sh shell) addrs(t *testing.T, dev string) []netip.Addr {
	t.Helper()
	out, err := sh("ip -o addr show dev " + dev + " scope global")
	if err != nil {
		t.Fatal(err)
	}
	var list []netip.Addr
	for l := range strings.Lines(out) {
		f := strings.Fields(l)
		p, err := netip.ParsePrefix(f[3])
		if err != nil {
			t.Fatalf("%v in %s", err, l)
		}
		list = append(list, p.Addr())
	}
	if len(list) == 0 {
		t.Fatalf("%s has no address", dev)
	}
	return list
}

// reaches pings each address from the container, and fetches a file from it.
func (sh shell) reaches(t *testing.T, to ...netip.Addr) {
	t.Helper()
	for _, a := range to {
		if out, err := sh("ping -c 1 -W 10 " + a.String()); err != nil {
			t.Errorf("%v%s", err, out)
		}
		sh.fetches(t, netip.AddrPortFrom(a, 80))
	}
}

// fetches gets what serve serves.
func (sh shell) fetches(t *testing.T, from netip.AddrPort) {
	t.Helper()
	if out, err := sh("timeout 60 wget -q -O - http://" + from.String() + "/index.html"); err != nil || strings.TrimSpace(out) != "ok" {
		t.Errorf("from %s: %q: %v", from, out, err)
	}
}

// onHost is a shell on a host, with busybox's applets.
func onHost(h *testnet.Host) shell {
	return func(script string) (string, error) {
		return output(h, os.Getenv("PATH"), "busybox", "sh", "-ec", script)
	}
}
