package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"ovs-gre-cni/test/cnitest"
)

// bait is what a stranger wants us to remove or overwrite: it has files of all
// the names that a network's directory has.
const bait = `rm -rf /run/bait; mkdir -p /run/bait/ovsnet/leases /run/bait/ovsnet/routes /run/bait/ovsnet/gone
for f in lock node nodes.json config.json routes.json persistent leases/%[1]s routes/%[1]s gone/%[1]s; do echo bait >/run/bait/ovsnet/$f; done
`

const tasted = `cd /run/bait && find . -printf '%y %m %p ' -exec sh -c '[ -d "$1" ] || cat "$1"' - {} ';' | sort`

// TestHostileNames puts paths, control characters and the like wherever a name goes.
func TestHostileNames(t *testing.T) {
	suite := count("hostile names")
	s := newStage(t, false, cnitest.Network{})
	s.h.Shell(t, fmt.Sprintf(bait, s.port()))
	s.h.Shell(t, "mkdir -p /run/cni; mkfifo /run/cni/pipe; printf '#!/bin/sh\\ntouch /run/cni/ran\\n' >/run/cni/evil; chmod +x /run/cni/evil")
	before := cnitest.MustLook(t, s.h)
	sweet := s.h.Shell(t, tasted)
	type call struct {
		name string
		box  box
		more cnitest.Conf
		env  []string
		fine bool // may be let through
	}
	v := *s.victim
	var calls []call
	long := strings.Repeat("a", 300)
	for _, bad := range []string{"", ".", "..", "../bait", "../../run/bait", "a/../../bait", "/run/bait", "a/b", "a b", "a\nb", "a\x1b[31mb", "-rf", "*", "$(reboot)", "ä", "\u202e"} {
		for _, at := range []string{"id", "ifname", "network"} {
			c := call{name: fmt.Sprintf("%s %q", at, bad), box: v}
			switch at {
			case "id":
				c.box.id = bad
			case "ifname":
				// What the kernel takes as a name we may take.
				c.box.ifname, c.fine = bad, bad == "-rf" || bad == "*" || bad == "$(reboot)" || bad == "ä" || bad == "\u202e" || bad == "a\x1b[31mb"
			case "network":
				c.more = cnitest.Conf{"name": bad}
			}
			calls = append(calls, c)
		}
	}
	idLong, ifLong := v, v
	idLong.id, ifLong.ifname = long, long[:16]
	calls = append(calls,
		call{name: "id of 300 bytes", box: idLong, fine: true},
		call{name: "ifname of 16 bytes", box: ifLong},
		call{name: "network of 300 bytes", box: v, more: cnitest.Conf{"name": long}},
		call{name: "MAC with control characters", box: v, env: []string{"CNI_ARGS=MAC=\x1b[31mred\x1b[0m\r\nfatal: forged log line"}},
		call{name: "CNI_ARGS of control characters", box: v, env: []string{"CNI_ARGS=\n\n\r=\x1b;\x07"}},
		call{name: "CNI_NETNS with a newline", box: box{id: "x", ifname: "eth0", netns: "/run/netns/a\nlevel=error msg=forged"}},
		call{name: "CNI_NETNS is a directory", box: box{id: "x", ifname: "eth0", netns: "/run/bait"}},
		call{name: "CNI_NETNS is another kind of namespace", box: box{id: "x", ifname: "eth0", netns: "/proc/1/ns/mnt"}},
		call{name: "CNI_NETNS is the host's own", box: box{id: "x", ifname: "eth0", netns: "/proc/1/ns/net"}},
		call{name: "node name with a newline", box: v, more: cnitest.Conf{"nodes": []cnitest.Conf{{"name": "a\nforged", "address": "172.16.32.100", "subnets": []string{"192.168.1.0/24"}}}}},
		call{name: "node address with control characters", box: v, more: cnitest.Conf{"nodes": []cnitest.Conf{{"name": "a", "address": "172.16.32.100\r\nforged\x1b[2J", "subnets": []string{"192.168.1.0/24"}}}}},
		call{name: "subnet with a zone", box: v, more: cnitest.Conf{"nodes": []cnitest.Conf{{"name": "a", "address": "172.16.32.100", "subnets": []string{"fe80::%eth0\n/64"}}}}},
		call{name: "bridge is a path", box: v, more: cnitest.Conf{"bridge": "../../bait"}},
		call{name: "bridge with a newline", box: v, more: cnitest.Conf{"bridge": "a\nb"}},
		call{name: "linuxBridge is a path", box: v, more: cnitest.Conf{"linuxBridge": "../bait"}},
		call{name: "key with a newline", box: v, more: cnitest.Conf{"a\nforged": 1}},
		call{name: "IPAM plugin is a path", box: v, more: cnitest.Conf{"ipam": cnitest.Conf{"type": "../../../run/cni/evil"}}},
		call{name: "IPAM plugin is an absolute path", box: v, more: cnitest.Conf{"ipam": cnitest.Conf{"type": "/run/cni/evil"}}},
		call{name: "OVSDB is a path with a newline", box: v, more: cnitest.Conf{"ovsdb": "unix:/run/a\nforged"}},
		call{name: "nodesFile is a directory", box: v, more: cnitest.Conf{"nodes": nil, "nodesFile": "/run/bait"}},
		call{name: "nodesFile is a device", box: v, more: cnitest.Conf{"nodes": nil, "nodesFile": "/dev/null"}},
		call{name: "nodesFile is a pipe", box: v, more: cnitest.Conf{"nodes": nil, "nodesFile": "/run/cni/pipe"}},
	)
	for _, c := range calls {
		var err error
		for _, verb := range []string{"ADD", "DEL"} {
			for _, plugin := range []string{"ovs-gre", "route-sync"} {
				more := c.more
				if plugin == "route-sync" {
					if verb == "ADD" {
						continue
					}
					more = cnitest.Conf{}
					if name, ok := c.more["name"]; ok {
						more["name"] = name
					}
				}
				begin := time.Now()
				out, callErr := cnitest.Plugin(s.h, plugin, verb, cnitest.PluginConf(t, s.list, plugin, more), append(c.box.env(), append(c.env, cniPath+":/run/cni")...)...)
				switch {
				case callErr != nil:
					// skel's own errors for names in the environment have the code 4.
					err = errors.Join(err, sane(callErr))
				case verb == "ADD" && !c.fine:
					err = errors.Join(err, fmt.Errorf("%s of %s was let through: %s", verb, plugin, out))
				}
				if d := time.Since(begin); d > delBound {
					err = errors.Join(err, fmt.Errorf("%s took %v", verb, d))
				}
			}
		}
		if c.fine {
			_, delErr := s.call(t, "ovs-gre", "DEL", &c.box, c.more)
			err = errors.Join(err, delErr)
		}
		err = errors.Join(err, before.Settled(s.h))
		if now := s.h.Shell(t, tasted); now != sweet {
			err = errors.Join(err, fmt.Errorf("the bait was touched:\n%s", now))
			s.h.Shell(t, fmt.Sprintf(bait, s.port()))
		}
		if _, ran := s.h.Output(context.Background(), "test", "!", "-e", "/run/cni/ran"); ran != nil {
			err = errors.Join(err, errors.New("it ran a program outside of CNI_PATH"))
			s.h.Shell(t, "rm /run/cni/ran")
		}
		suite.point(t, c.name, err)
	}
}

// TestPlanted has a stranger make our directory before we do.
func TestPlanted(t *testing.T) {
	suite := count("planted directories")
	for _, c := range []struct{ name, script string }{
		{"a link in place of /run/ovs-gre", "ln -s /run/bait /run/ovs-gre"},
		{"a file in place of /run/ovs-gre", "echo bait >/run/ovs-gre"},
		{"a world-writable /run/ovs-gre", "mkdir /run/ovs-gre; cp -r /run/bait/ovsnet /run/ovs-gre; chmod 777 /run/ovs-gre"},
		{"a stranger's /run/ovs-gre", "mkdir /run/ovs-gre; cp -r /run/bait/ovsnet /run/ovs-gre; chown 65534 /run/ovs-gre"},
		{"a link in place of the network's", "mkdir -m 700 /run/ovs-gre; ln -s /run/bait/ovsnet /run/ovs-gre/ovsnet"},
		{"a world-writable network's", "mkdir -m 700 /run/ovs-gre; cp -r /run/bait/ovsnet /run/ovs-gre; chmod 777 /run/ovs-gre/ovsnet"},
		{"a link in place of the lock", "mkdir -m 700 -p /run/ovs-gre/ovsnet; ln -s /run/bait/ovsnet/lock /run/ovs-gre/ovsnet/lock"},
		{"a link in place of the leases", "mkdir -m 700 -p /run/ovs-gre/ovsnet; ln -s /run/bait/ovsnet/leases /run/ovs-gre/ovsnet/leases; ln -s /run/bait/ovsnet/routes /run/ovs-gre/ovsnet/routes"},
	} {
		s := stagePlanted(t)
		script := fmt.Sprintf(bait, s.port()) + "chmod -R go-w /run/bait; rm -rf /run/ovs-gre; umask 022; " + c.script
		s.h.Shell(t, script)
		s.before = cnitest.MustLook(t, s.h)
		sweet := s.h.Shell(t, tasted)
		_, err := s.call(t, "ovs-gre", "ADD", s.victim, nil)
		err = wantRefusal(err)
		for _, verb := range []string{"DEL", "GC", "STATUS"} {
			for _, plugin := range []string{"ovs-gre", "route-sync"} {
				// It may fail or have nothing to do; it follows nothing.
				_, callErr := s.call(t, plugin, verb, s.victim, cnitest.Conf{"cni.dev/valid-attachments": []any{}})
				err = errors.Join(err, sane(callErr))
			}
		}
		if now := s.h.Shell(t, tasted); now != sweet {
			err = errors.Join(err, fmt.Errorf("the bait was touched:\nbefore:\n%safter:\n%s", sweet, now))
		}
		suite.point(t, c.name, errors.Join(err, s.before.Settled(s.h)))
	}
}

var planted *stage

// stagePlanted is one stage for all of TestPlanted: nothing gets far there.
func stagePlanted(t *testing.T) *stage {
	if planted == nil {
		planted = newStage(t, false, cnitest.Network{})
	}
	return planted
}

// wantRefusal is an error that names the directory and says that it is not ours.
func wantRefusal(err error) error {
	var e *types.Error
	if errors.As(err, &e) && e.Code != 102 && e.Code != types.ErrIOFailure {
		return fmt.Errorf("code %d: %s", e.Code, e.Msg)
	}
	if err == nil || !strings.Contains(err.Error(), "/run/ovs-gre") {
		return fmt.Errorf("no refusal that names the directory: %w", errors.Join(err, errors.New("not refused")))
	}
	return sane(err)
}

// TestForeign has links and ports of others bear the names that we compute.
func TestForeign(t *testing.T) {
	suite := count("foreign names")
	s := newStage(t, true, cnitest.Network{})
	for _, c := range []struct{ name, make, remove string }{
		{"a bridge", "ip link add %s type bridge", "ip link delete %s"},
		{"a veth", "ip link add %s type veth peer name foreign", "ip link delete %s"},
		{"a veth with an alias", "ip link add %s type veth peer name foreign; ip link set %[1]s alias mine", "ip link delete %s"},
		{"a veth with another container's alias", "ip link add %s type veth peer name foreign; ip link set %[1]s alias 'ovs-gre ovsnet other eth0'", "ip link delete %s"},
		{"an OVS port without a link", "ovs-vsctl --timeout=20 add-port br-phy %s -- set interface %[1]s type=gre options:remote_ip=172.16.32.77 options:key=99", "ovs-vsctl --timeout=20 del-port %s"},
		{"an OVS port with a link", "ovs-vsctl --timeout=20 add-port br-phy %s -- set interface %[1]s type=internal", "ovs-vsctl --timeout=20 del-port %s"},
	} {
		s.h.Shell(t, fmt.Sprintf(c.make, s.port()))
		before := cnitest.MustLook(t, s.h)
		_, err := s.call(t, "ovs-gre", "ADD", s.victim, nil)
		err = wantError(err, 102, s.port())
		err = errors.Join(err, before.Settled(s.h))
		for _, verb := range []string{"DEL", "GC"} {
			_, callErr := s.call(t, "ovs-gre", verb, s.victim, cnitest.Conf{"cni.dev/valid-attachments": []cnitest.Conf{{"containerID": s.stay[0].id, "ifname": s.stay[0].ifname}}})
			err = errors.Join(err, sane(callErr))
			if left := before.Left(s.h); left != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", verb, left))
			}
		}
		suite.point(t, c.name, err)
		_, _ = s.h.Output(context.Background(), "sh", "-c", fmt.Sprintf(c.remove, s.port()))
		if err := eventually(func() error { return errors.Join(s.before.Left(s.h)) }); err != nil {
			s = newStage(t, true, cnitest.Network{})
		}
	}
}

// TestHuge has a configuration with very many nodes.
func TestHuge(t *testing.T) {
	suite := count("huge configuration")
	s := newStage(t, false, cnitest.Network{})
	nodes := func(n int) []cnitest.Conf {
		list := []cnitest.Conf{{"name": "host1", "address": s.h.Addr4.String(), "subnets": []string{"192.168.1.0/24"}}}
		for i := 1; i < n; i++ {
			list = append(list, cnitest.Conf{"name": fmt.Sprintf("node%d", i), "address": fmt.Sprintf("172.17.%d.%d", i/250, i%250+1), "subnets": []string{fmt.Sprintf("10.%d.%d.0/24", i/250, i%250)}})
		}
		return list
	}
	tens := nodes(10000)
	raw, err := json.Marshal(tens)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	_, err = s.call(t, "ovs-gre", "STATUS", nil, cnitest.Conf{"nodes": tens})
	suite.note("10,000 nodes (%d KiB): STATUS %v", len(raw)>>10, time.Since(begin).Round(time.Millisecond))
	suite.point(t, "STATUS", err)
	begin = time.Now()
	tens[9999] = cnitest.Conf{"name": "node1", "address": tens[5]["address"], "subnets": []string{"10.0.5.128/25"}}
	_, err = s.call(t, "ovs-gre", "ADD", s.victim, cnitest.Conf{"nodes": tens})
	suite.note("refused after %v", time.Since(begin).Round(time.Millisecond))
	suite.point(t, "ADD of nodes that overlap", errors.Join(wantError(err, types.ErrInvalidNetworkConfig, "node1"), s.before.Settled(s.h)))

	n := 1000
	if full {
		n = 10000
	}
	more := cnitest.Conf{"nodes": nodes(n), "timeoutSeconds": 60}
	begin = time.Now()
	out, err := s.call(t, "ovs-gre", "ADD", s.victim, more)
	took := time.Since(begin)
	if took > 90*time.Second {
		suite.point(t, "ADD", fmt.Errorf("it took %v", took))
	}
	if err == nil && strings.Contains(out, `"ips"`) {
		suite.note("%d nodes: ADD %v", n, took.Round(time.Millisecond))
	} else {
		suite.note("%d nodes: ADD failed after %v", n, took.Round(time.Millisecond))
		err = wantError(err, types.ErrTryAgainLater)
	}
	begin = time.Now()
	_, delErr := s.call(t, "ovs-gre", "DEL", s.victim, more)
	suite.note("DEL %v", time.Since(begin).Round(time.Millisecond))
	left := s.before.Settled(s.h)
	// ovs-vswitchd takes out port by port what an ADD that gave up has put into OVSDB.
	for end := time.Now().Add(5 * time.Minute); full && left != nil && time.Now().Before(end); {
		left = s.before.Settled(s.h)
	}
	suite.point(t, fmt.Sprintf("ADD and DEL with %d nodes", n), errors.Join(err, delErr, left))
}
