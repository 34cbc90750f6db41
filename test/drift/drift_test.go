// Package drift changes by hand what a host has, one thing after the other, and
// looks whether CHECK tells and the next ADD, or ovs-grectl up, mends it. What
// there is to change is derived from the desired state.
package drift

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode/utf8"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/state"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

const conflist = "/etc/cni/net.d/10-ovsnet.conflist"

// tosFile has the value of an option of the tunnels.
const tosFile = "/var/lib/ovs-gre/tos"

// A scene is a lab with a container on each of two hosts.
type scene struct {
	lab   *testnet.Lab
	cs    []*cnitest.Container
	first *testnet.Host
	// want is what the first host should have, with its container's port.
	want state.Set
}

func setScene(t *testing.T, segment, ports string) *scene {
	l := testnet.New(t, testnet.Options{Hosts: 2, PluginDir: cnitest.BinDir(t)})
	tunnel := cnitest.Conf{"options": cnitest.Conf{"ttl": 33, "tos": cnitest.Conf{"file": tosFile}}}
	n := cnitest.Network{OVSGRE: cnitest.Conf{"segment": segment, "ipMasq": true, "tunnel": tunnel}}
	if ports == "fan" {
		n.OVSGRE["nodes"] = cnitest.Conf{"underlay": "172.16.0.0/16", "containers": "10.0.0.0/8"}
	} else {
		tunnel["ports"] = ports
	}
	n.Install(t, l)
	for _, h := range l.Hosts {
		h.Shell(t, "umask 077; echo inherit >"+tosFile+"; iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP")
	}
	s := &scene{lab: l, first: l.Hosts[0], cs: cnitest.AddAll(t, l, "ovsnet")}
	s.want = desired(t, n.Conflist(l), l.Hosts[0].Addr4, s.cs[0])
	s.first.Shell(t, vsctl+"add-br other -- set bridge other datapath_type="+l.Datapath)
	cnitest.AllReach(t, s.cs)
	return s
}

// desired is what a host wants, for the container on it, too.
func desired(t *testing.T, file string, address netip.Addr, c *cnitest.Container) state.Set {
	t.Helper()
	conf, err := config.Parse([]byte(cnitest.PluginConf(t, file, "ovs-gre", nil)))
	if err != nil {
		t.Fatal(err)
	}
	routes, err := config.ParseRoutes([]byte(cnitest.PluginConf(t, file, "route-sync", nil)))
	if err != nil {
		t.Fatal(err)
	}
	m, err := nodes.Find(&conf.Base, []netip.Addr{address})
	if err != nil {
		t.Fatal(err)
	}
	mtu, err := state.MTU(conf, m, 1500)
	if err != nil {
		t.Fatal(err)
	}
	want := state.Desired(conf, m, mtu)
	ways := state.NextHops{Sources: m.Self.Gateways()}
	if state.UsesTunnelBridge(conf) {
		ways.Transit, ways.OneTunnel = config.TransitLink(conf.Bridge), state.OneTunnel(conf)
	} else {
		ways.Segment = state.GatewayLink(conf)
	}
	set, err := state.DesiredRoutes(routes, m, ways)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(want, set)
	port := c.Result.Interfaces[1].Name
	want.Put(state.Port{Network: conf.Name, Name: port, Bridge: conf.Bridge, ContainerID: c.Name, IfName: c.IfName,
		Protected: conf.Segment == config.SegmentContainer}, state.Link{Name: port, Up: true})
	return want
}

// TestFaults does every fault to every object of each segment.
func TestFaults(t *testing.T) {
	var total atomic.Int64
	var kinds sync.Map
	for _, kind := range [][2]string{{"host", "peer"}, {"mesh", "peer"}, {"container", "peer"}, {"host", "one"}, {"container", "fan"}} {
		segment, ports := kind[0], kind[1]
		t.Run(segment+" with ports "+ports, func(t *testing.T) {
			t.Parallel()
			s := setScene(t, segment, ports)
			objects := s.want.Sorted()
			for _, o := range objects {
				kinds.Store(o.ID().Kind, true)
				for _, f := range complete(t, o) {
					total.Add(1)
					name := strings.ReplaceAll(o.Noun(), "/", "-")
					if f.field != "" {
						name += "'s " + f.field
					} else {
						name += " gone"
					}
					t.Run(name, func(t *testing.T) { s.play(t, o, f) })
				}
			}
			fmt.Printf("drift: segment %s with ports %s: %d objects\n", segment, ports, len(objects))
		})
	}
	t.Cleanup(func() {
		n := 0
		kinds.Range(func(any, any) bool { n++; return true })
		fmt.Printf("drift: %d faults to %d kinds of objects in 3 segments, also with one tunnel port and without a list of nodes, each mended by ADD, by up and by the commands that are given for it\n", total.Load(), n)
	})
}

// complete returns the faults of an object, of which each attribute must have
// one, or a reason for having none.
func complete(t *testing.T, o state.Object) []fault {
	t.Helper()
	list := faults(o, "other")
	typ := reflect.TypeOf(o)
	if len(list) == 0 {
		t.Errorf("%s: nothing is known that could be done to a %s", o.Noun(), typ)
	}
	for i := range typ.NumField() {
		field := typ.Field(i).Name
		_, reason := named[typ][field]
		covered := slices.ContainsFunc(list, func(f fault) bool { return f.field == field })
		if !reason && !covered && !reflect.ValueOf(o).Field(i).IsZero() {
			t.Errorf("%s: nothing changes its attribute %s", o.Noun(), field)
		}
	}
	return list
}

// play does one fault three times: CHECK tells it and the next ADD mends it; up
// mends it; the commands that a person is given mend it. What belongs to one container alone, another one's ADD lets be.
func (s *scene) play(t *testing.T, o state.Object, f fault) {
	own := o.ID().Kind == state.KindPort || o.Noun() == state.Link{Name: s.cs[0].Result.Interfaces[1].Name}.Noun()
	// With another MAC address the kernel forgets the containers' neighbour entries.
	// Once ovs-vswitchd has taken it back nothing else is amiss, but with IPv6 the
	// link-local address.
	own = own || f.field == "MAC" && o.Noun() == state.Link{Name: "obr0"}.Noun() && len(s.cs[0].Addrs()) == 1
	s.first.Shell(t, f.command)
	if err := s.cs[0].Call("check"); told(o, f) && (err == nil || !strings.Contains(err.Error(), subject(o))) {
		t.Errorf("CHECK after %s: %v, want a word about %s", f.command, err, subject(o))
	}
	if !own {
		late := cnitest.Add(t, s.first, "ovsnet", "late")
		s.well(t, "ADD", f, late)
		if err := late.Call("del"); err != nil {
			t.Error(err)
		}
		late.Delete(t)
		// Until ovs-vswitchd has done what DEL asked for. It takes a MAC address back
		// when it goes through its ports, and the userspace datapath's link down with it.
		s.first.Shell(t, "ovs-vsctl --timeout=20 set open_vswitch . external_ids:drift=$(date +%s%N)")
		s.first.Shell(t, f.command)
	}
	s.first.Run(t, "/opt/cni/bin/ovs-grectl", "up", conflist)
	s.well(t, "up", f)
	s.first.Shell(t, f.command)
	s.byHand(t, o, f)
}

// rounds is how often somebody looks again who types commands: a link that is made
// anew, or gets another MAC address, comes without neighbours.
const rounds = 3

// byHand types the commands that status and CHECK give for what has drifted, in
// their order, and looks whether nothing drifts then.
func (s *scene) byHand(t *testing.T, o state.Object, f fault) {
	t.Helper()
	texts, commands := s.drift(t)
	if told(o, f) && !slices.ContainsFunc(texts, func(d string) bool { return strings.Contains(d, subject(o)) }) {
		t.Errorf("%s; status: %q, want a word about %s", f.command, texts, subject(o))
	}
	for round := 0; round < rounds && len(texts) > 0; round++ {
		for _, command := range commands {
			if out, err := s.first.Output(t.Context(), "sh", "-c", command); err != nil {
				t.Errorf("%s; by hand: %s: %v\n%s", f.command, command, err, out)
			}
		}
		texts, commands = s.drift(t)
	}
	if len(texts) > 0 {
		t.Errorf("%s; by hand, after %d rounds: %q %q", f.command, rounds, texts, commands)
		s.first.Run(t, "/opt/cni/bin/ovs-grectl", "up", conflist)
	}
	s.reach(t, "by hand", f, s.cs[0])
}

// drift is what status and CHECK say is amiss, and the commands that they give.
func (s *scene) drift(t *testing.T) (texts, commands []string) {
	t.Helper()
	out, _ := s.first.Output(t.Context(), "/opt/cni/bin/ovs-grectl", "status", "-o", "json", conflist) // drift is exit 1
	all := []struct{ Drift, ByHand []string }{}
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 {
		t.Fatalf("status: %v: %s", err, out)
	}
	texts = all[0].Drift
	for _, text := range texts {
		if n := utf8.RuneCountInString(text); n > 120 && !strings.Contains(text, " of chain ") { // a foreign rule is quoted
			t.Errorf("a message of %d characters: %s", n, text)
		}
	}
	for i, command := range all[0].ByHand {
		if command != "" {
			commands = append(commands, command)
		} else if !strings.HasSuffix(texts[i], "is left over") && !strings.HasPrefix(texts[i], "no way to the peer") {
			t.Errorf("status has no command for: %s", texts[i])
		}
	}
	if len(texts) > 0 {
		return texts, commands
	}
	// What a container alone has, CHECK tells alone.
	if err := s.cs[0].Call("check"); err != nil {
		for line := range strings.Lines(err.Error()) {
			if text, command, found := strings.Cut(strings.TrimSpace(line), "; by hand: "); found {
				texts, commands = append(texts, text), append(commands, command)
			}
		}
		if len(texts) == 0 {
			t.Errorf("CHECK has no command for: %v", err)
		}
	}
	return texts, commands
}

// told reports whether CHECK has to tell that the object is not as it should
// be: traffic runs without an FDB entry, and MTU and MAC address of its own links
// ovs-vswitchd may have taken back already.
func told(o state.Object, f fault) bool {
	ovs := o.ID().Kind == state.KindLink && (f.field == "MTU" || f.field == "MAC")
	return o.ID().Kind != state.KindFDB && !ovs
}

// subject is what a message names an object by.
func subject(o state.Object) string {
	if r, ok := o.(state.Route); ok {
		return r.Dst.String()
	}
	return o.Noun()
}

// well looks whether all is as it should be after mending.
func (s *scene) well(t *testing.T, by string, f fault, late ...*cnitest.Container) {
	t.Helper()
	if err := s.cs[0].Call("check"); err != nil {
		t.Errorf("%s; %s; CHECK: %v", f.command, by, err)
	}
	s.reach(t, by, f, append(late, s.cs[0])...)
}

func (s *scene) reach(t *testing.T, by string, f fault, from ...*cnitest.Container) {
	t.Helper()
	for _, c := range from {
		lost, err := cnitest.Unreached(c, s.cs[1].Addrs()...)
		if err != nil || len(lost) > 0 {
			t.Errorf("%s; %s: %s gets no answer from %v %v", f.command, by, c.Name, lost, err)
		}
	}
}
