package faults

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// delBound is what a DEL may take on a machine that is busy. On an idle one it
// is to be 2 s; the suite prints the longest.
const delBound = 10 * time.Second

// A deletion is a DEL with something missing.
type deletion struct {
	name string
	// noAdd: the container was never attached.
	noAdd bool
	// more are keys for ADD as well as DEL.
	more cnitest.Conf
	// before breaks something, after mends it.
	before, after func(*testing.T, *stage) error
	// env and conf make the call; nil is as ADD was called.
	env  func(*stage) []string
	conf func(t *testing.T, s *stage, plugin string) string
	// want is how ovs-gre fails; nil is not at all.
	want func(error) error
	// anew: the container that stays had to be attached anew.
	anew bool
	// kept: something is left that the next GC, DEL or ADD takes away.
	kept bool
}

// steps do one after the other.
func steps(fs ...func(context.Context) error) error {
	for _, f := range fs {
		if err := f(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

func shell(script string) func(*testing.T, *stage) error {
	return func(t *testing.T, s *stage) error {
		_, err := s.h.Output(context.Background(), "sh", "-ec", script)
		return err
	}
}

const (
	pauseOVSDB  = `kill -STOP $(cat /run/openvswitch/ovsdb-server.pid)`
	resumeOVSDB = `kill -CONT $(cat /run/openvswitch/ovsdb-server.pid)`
)

// stripped is what multus hands on in DEL.
func stripped(_ *testing.T, s *stage, plugin string) string {
	if plugin == "ovs-gre" {
		return fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"type":"ovs-gre","ipam":{"type":"host-local"}}`, s.name)
	}
	return fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"type":"route-sync","ipam":{}}`, s.name)
}

// edited has other nodes, another bridge, another tunnel, another address.
func edited(t *testing.T, s *stage, plugin string) string {
	nodes := []cnitest.Conf{{"name": "a", "address": "203.0.113.1", "subnets": []string{"10.99.0.0/24"}}, {"name": "b", "address": "203.0.113.2", "subnets": []string{"10.99.1.0/24"}}}
	if plugin == "ovs-gre" {
		return cnitest.PluginConf(t, s.list, plugin, cnitest.Conf{"nodes": nodes, "bridge": "obr9", "segment": "mesh", "tunnel": cnitest.Conf{"type": "vxlan", "key": 7}, "ipMasq": false})
	}
	return cnitest.PluginConf(t, s.list, plugin, cnitest.Conf{"nodes": nodes, "mode": "direct", "table": 77})
}

func envWithout(keys ...string) func(*stage) []string {
	return func(s *stage) []string {
		var env []string
		for _, e := range s.victim.env() {
			if k, _, _ := strings.Cut(e, "="); k != keys[0] {
				env = append(env, e)
			}
		}
		return append(env, keys[1:]...)
	}
}

var deletions = []deletion{
	{name: "netns unset", env: envWithout("CNI_NETNS")},
	{name: "netns empty", env: envWithout("CNI_NETNS", "CNI_NETNS=")},
	{name: "netns gone",
		before: shell("ip netns delete victim"),
		after:  shell("ip netns add victim; ip -n victim link set lo up")},
	{name: "netns of another container", env: envWithout("CNI_NETNS", "CNI_NETNS=/var/run/netns/other"),
		before: shell("ip -n other link add eth0 type veth peer name eth9; ip -n other addr add 10.9.9.9/24 dev eth0; ip -n other link set eth0 up"),
		after:  shell("ip -n other addr show dev eth0 | grep -q 10.9.9.9; ip -n other link delete eth0")},
	{name: "netns without the interface", before: shell("ip -n victim link delete eth0")},
	{name: "netns is a file", env: envWithout("CNI_NETNS", "CNI_NETNS=/etc/passwd")},
	{name: "no prevResult", before: func(_ *testing.T, s *stage) error { s.victim.prev = ""; return nil }},
	{name: "CNI_ARGS empty", env: envWithout("CNI_ARGS", "CNI_ARGS=")},
	{name: "CNI_ARGS nonsense", env: envWithout("CNI_ARGS", "CNI_ARGS=;=;nonsense;IP=x;MAC=y")},
	{name: "repeated", before: func(t *testing.T, s *stage) error { return errors.Join(s.del(t, s.victim), s.del(t, s.victim)) }},
	{name: "never added", noAdd: true},
	{name: "stripped configuration", conf: stripped},
	{name: "stripped configuration, netns gone", conf: stripped,
		before: shell("ip netns delete victim"),
		after:  shell("ip netns add victim; ip -n victim link set lo up")},
	{name: "edited configuration", conf: edited},
	{name: "host link deleted", before: func(t *testing.T, s *stage) error {
		_, err := s.h.Output(context.Background(), "ip", "link", "delete", s.port())
		return err
	}},
	{name: "bridge removed by hand", anew: true, before: shell("ovs-vsctl --timeout=20 del-br obr0"),
		after: func(t *testing.T, s *stage) error {
			if len(s.stay) == 0 {
				return nil
			}
			// The container that stays lost its port with the bridge; its
			// runtime makes it anew.
			return errors.Join(s.del(t, s.stay[0]), s.add(t, s.stay[0]))
		}},
	{name: "IPAM plugin missing", more: cnitest.Conf{"ipam": cnitest.Conf{"type": "faults-ipam", "subnet": "192.168.1.0/24"}},
		before: func(_ *testing.T, s *stage) error {
			_, err := s.h.Output(context.Background(), "mv", "/etc/cni/faults-ipam", "/etc/cni/faults-away")
			return err
		},
		want: func(err error) error { return wantError(err, 11, "faults-ipam", "CNI_PATH") },
		after: func(t *testing.T, s *stage) error {
			_, err := s.h.Output(context.Background(), "mv", "/etc/cni/faults-away", "/etc/cni/faults-ipam")
			return err
		}, kept: true},
	{name: "ovs-vswitchd dead",
		before: func(_ *testing.T, s *stage) error { return steps(s.h.KillVswitchd) },
		after:  func(_ *testing.T, s *stage) error { return steps(s.h.StartVswitchd) }},
	{name: "ovs-vswitchd silent",
		before: func(_ *testing.T, s *stage) error { return steps(s.h.PauseVswitchd) },
		after:  func(_ *testing.T, s *stage) error { return steps(s.h.ResumeVswitchd) }},
	{name: "ovsdb-server dead",
		before: func(_ *testing.T, s *stage) error { return steps(s.h.KillOVSDB) },
		after:  func(_ *testing.T, s *stage) error { return steps(s.h.StartOVSDB) }, kept: true},
	{name: "ovsdb-server stopped",
		before: func(_ *testing.T, s *stage) error { return steps(s.h.StopOVSDB) },
		after:  func(_ *testing.T, s *stage) error { return steps(s.h.StartOVSDB) }, kept: true},
	{name: "ovsdb-server silent", before: shell(pauseOVSDB), after: shell(resumeOVSDB), kept: true},
	{name: "all of it at once", conf: stripped, env: envWithout("CNI_NETNS"),
		before: func(t *testing.T, s *stage) error {
			s.victim.prev = ""
			return errors.Join(shell("ip netns delete victim")(t, s), steps(s.h.KillVswitchd, s.h.KillOVSDB))
		},
		after: func(t *testing.T, s *stage) error {
			return errors.Join(shell("ip netns add victim; ip -n victim link set lo up")(t, s), steps(s.h.StartOVS))
		}, kept: true},
	{name: "leases lost", before: shell("rm -r /run/ovs-gre"), kept: true},
}

// port is the name of the victim's link and OVS port.
func (s *stage) port() string { return config.PortName(s.name, s.victim.id, s.victim.ifname) }

// TestDel takes containers off with something missing.
func TestDel(t *testing.T) {
	suite := count("del")
	var longest time.Duration
	var at string
	for _, standing := range []bool{false, true} {
		var s *stage
		for i, d := range deletions {
			if standing && d.name == "leases lost" {
				continue // the lease of the container that stays would be lost as well
			}
			if s == nil {
				s = newStage(t, standing, cnitest.Network{})
				s.box(t, "other")
				s.h.Shell(t, "cp /opt/cni/bin/host-local /etc/cni/faults-ipam")
				s.before = cnitest.MustLook(t, s.h)
			}
			took, err := s.delete(t, d, i)
			if took > longest {
				longest, at = took, d.name
			}
			name := map[bool]string{false: "last container: ", true: "one of two: "}[standing] + d.name
			t.Logf("%s: %v", name, took.Round(time.Millisecond))
			if !suite.point(t, name, err) {
				s = nil
			}
		}
	}
	suite.note("longest %v: %s", longest.Round(time.Millisecond), at)
}

const cniPath = "CNI_PATH=/opt/cni/bin:/etc/cni"

// delete goes through one of the deletions.
func (s *stage) delete(t *testing.T, d deletion, i int) (took time.Duration, err error) {
	s.victim.prev = ""
	if !d.noAdd {
		// CNI_PATH comes twice, and the last one counts.
		out, err := cnitest.Plugin(s.h, "ovs-gre", "ADD", cnitest.PluginConf(t, s.list, "ovs-gre", d.more), append(s.victim.env(), cniPath)...)
		if err != nil {
			return 0, err
		}
		s.victim.prev = out
		if _, err := s.call(t, "route-sync", "ADD", s.victim, s.victim.conf()); err != nil {
			return 0, err
		}
	}
	if d.before != nil {
		if err := d.before(t, s); err != nil {
			return 0, err
		}
	}
	once := func() (errs []error) {
		for _, plugin := range []string{"route-sync", "ovs-gre"} {
			env, conf := s.victim.env(), ""
			if d.env != nil {
				env = d.env(s)
			}
			if d.conf != nil {
				conf = d.conf(t, s, plugin)
			} else {
				more := s.victim.conf()
				if plugin == "ovs-gre" {
					more = cnitest.Conf{}
					for k, v := range s.victim.conf() {
						more[k] = v
					}
					for k, v := range d.more {
						more[k] = v
					}
				}
				conf = cnitest.PluginConf(t, s.list, plugin, more)
			}
			begin := time.Now()
			_, err := cnitest.Plugin(s.h, plugin, "DEL", conf, append(env, cniPath)...)
			took = max(took, time.Since(begin))
			errs = append(errs, err)
		}
		return errs
	}
	errs := once()
	if errs[0] != nil {
		return took, fmt.Errorf("route-sync: %w", errs[0])
	}
	if d.want != nil {
		if err := d.want(errs[1]); err != nil {
			return took, err
		}
	} else if errs[1] != nil {
		return took, fmt.Errorf("ovs-gre: %w", errs[1])
	}
	if took > delBound {
		return took, fmt.Errorf("it took %v", took)
	}
	// Whatever is dead: link and addresses are gone.
	gone, err := s.h.Output(context.Background(), "sh", "-c", "ip -br link show dev "+s.port()+" 2>/dev/null; grep -l ^victim /var/lib/cni/networks/*/* 2>/dev/null; :")
	if err != nil {
		return took, err
	}
	if gone = strings.TrimSpace(gone); gone != "" && d.want == nil {
		return took, fmt.Errorf("DEL left %s", gone)
	}
	if d.after != nil {
		if err := d.after(t, s); err != nil {
			return took, err
		}
	}
	if d.kept {
		switch {
		case d.want != nil:
			if errs := once(); errors.Join(errs...) != nil {
				return took, fmt.Errorf("DEL, mended: %w", errors.Join(errs...))
			}
		case i%2 == 0:
			if err := s.gc(t, s.stay...); err != nil {
				return took, err
			}
		default:
			// The next ADD purges, and its DEL takes the rest along.
			next := &box{id: "next", ifname: "eth0", netns: s.victim.netns}
			if err := errors.Join(s.add(t, next), s.del(t, next)); err != nil {
				return took, fmt.Errorf("the next container: %w", err)
			}
		}
	}
	if d.anew && len(s.stay) > 0 {
		s.before = cnitest.MustLook(t, s.h) // the network's last container shows that nothing is left
	}
	if err := s.before.Settled(s.h); err != nil {
		return took, err
	}
	for _, b := range s.stay {
		if err := eventually(func() error { return s.check(t, b) }); err != nil {
			return took, fmt.Errorf("the container that stays: %w", err)
		}
		ns := &testnet.Netns{Name: filepath.Base(b.netns), Path: b.netns, Host: s.h}
		if _, err := ns.Output(context.Background(), "ip", "link", "show", "dev", b.ifname); err != nil {
			return took, err
		}
	}
	return took, nil
}
