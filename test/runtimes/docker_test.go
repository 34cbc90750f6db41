package runtimes

import (
	"fmt"
	"net/netip"
	"os"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// startDocker starts a Docker Engine on a host. It uses the containerd that
// runs there, as a distribution's does.
func startDocker(t *testing.T, l *testnet.Lab, h *testnet.Host, bridge netip.Prefix) *daemon {
	t.Helper()
	need(t, "dockerd")
	d := &daemon{host: h, path: "/usr/sbin:/usr/bin:/sbin:/bin", ready: []string{"docker", "version"},
		args: []string{"dockerd", "--bip", bridge.String(), "--exec-opt", "native.cgroupdriver=cgroupfs", "--containerd", "/run/containerd/containerd.sock"}}
	d.start(t)
	t.Cleanup(func() {
		if _, err := d.output("sh", "-c", "docker ps -aq | xargs -r docker rm -f"); err != nil {
			t.Log(err)
		}
		d.stop(t)
	})
	d.run(t, "docker", "load", "-i", imageFile(l))
	// With its first port a Linux bridge gets a link-local address, and keeps it.
	d.run(t, "docker", "run", "--name", "first", "-d", image, "sleep", "infinity")
	testnet.Eventually(t, patience, func() error {
		_, err := d.output("sh", "-c", "ip -6 addr show dev docker0 scope link | grep -q inet6")
		return err
	})
	d.run(t, "docker", "rm", "-f", "first")
	return d
}

// TestDocker has a container of Docker Engine on one host, and one of nerdctl
// on the other, on docker0 of each. test/recipes has more of Docker.
func TestDocker(t *testing.T) {
	t.Parallel()
	row := begin(t, "Docker Engine")
	l := lab(t)
	subnets := func(i int) []string { return []string{fmt.Sprintf("172.%d.0.0/16", 17+i)} }
	network := cnitest.Network{Version: "1.0.0", Subnets: subnets, OVSGRE: cnitest.Conf{"linuxBridge": "docker0", "segment": "mesh"}}
	network.Install(t, l)
	var engines []*daemon
	var one nerdctl
	for i, h := range l.Hosts {
		one = nerdctl{startContainerd(t, l, h, release{}, containerdConf, "default")}
		gateway := netip.PrefixFrom(netip.MustParsePrefix(subnets(i)[0]).Addr().Next(), 16)
		engines = append(engines, startDocker(t, l, h, gateway))
	}
	one.path = upstream(t, "nerdctl") + ":" + os.Getenv("PATH")
	docker := engines[0]
	row.version = docker.run(t, "docker", "version", "--format", "{{.Server.Version}}")
	before := look(t, l)
	for _, h := range l.Hosts {
		h.Run(t, "/opt/cni/bin/ovs-grectl", "up")
	}
	row.check(t, "ping and HTTP to nerdctl's on docker0 of the peer, and back", func(t *testing.T) {
		docker.run(t, "docker", append([]string{"run", "-d", "--name", "web", image}, serve...)...)
		var sh shell = func(script string) (string, error) {
			return docker.output("docker", "exec", "web", "sh", "-ec", script)
		}
		// Docker does not know of host-local's addresses, nor that of Docker's.
		web := one.container(t, "web", "--net", "ovsnet", "--ip", "172.18.200.1")
		sh.reaches(t, web.addrs(t, "eth0")...)
		shell(web.exec).reaches(t, sh.addrs(t, "eth0")...)
		web.do(t, "rm", "-f")
		docker.run(t, "docker", "rm", "-f", "web")
	})
	for _, h := range l.Hosts {
		h.Run(t, "/opt/cni/bin/ovs-grectl", "down")
	}
	row.check(t, "nothing left", func(t *testing.T) { nothingLeft(t, l, before) })
}
