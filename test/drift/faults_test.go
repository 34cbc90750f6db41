package drift

import (
	"fmt"
	"reflect"
	"strings"

	"ovs-gre-cni/pkg/state"
)

// A fault is what somebody does by hand to one object of the host state.
type fault struct {
	// field is the attribute that is another then; "" where the object is gone.
	field string
	// command does it.
	command string
}

// named are the attributes that say which thing an object is: with another it
// would be another thing. Reasons are given for those that no hand can change.
var named = map[reflect.Type]map[string]string{
	reflect.TypeFor[state.Bridge](): {
		"Network": "owner", "Name": "name",
		"DatapathType": "a lab has one datapath", "Adopted": "of the configuration", "PortOf": "TestUpgrade of test/e2e",
	},
	reflect.TypeFor[state.Tunnel]():     {"Network": "owner", "Name": "name", "Secrets": "of the configuration"},
	reflect.TypeFor[state.Port]():       {"Network": "owner", "Name": "name"},
	reflect.TypeFor[state.Sysctl]():     {"Key": "name"},
	reflect.TypeFor[state.Link]():       {"Name": "name", "MaxMTU": "TestLinuxBridgeMTU of test/field"},
	reflect.TypeFor[state.Addr]():       {"Dev": "name", "Prefix": "name"},
	reflect.TypeFor[state.Neigh]():      {"Dev": "name", "IP": "name"},
	reflect.TypeFor[state.Route]():      {"Dst": "name", "Table": "name", "Metric": "name", "Src": "owner", "Onlink": "goes with Via"},
	reflect.TypeFor[state.Masquerade](): {"Network": "owner"},
	reflect.TypeFor[state.Forward](): {
		"Network": "owner", "Routes": "owner", "In": "name", "Out": "name", "From": "another rule", "To": "another rule", "Answers": "name",
	},
	reflect.TypeFor[state.FDB]():   {"Network": "owner", "Bridge": "name", "MAC": "name"},
	reflect.TypeFor[state.Flows](): {"Network": "owner", "Bridge": "name"},
}

const vsctl = "ovs-vsctl --timeout=60 "

// faults are all that can be done to an object. other is a bridge for ports
// that are moved.
func faults(o state.Object, other string) []fault {
	switch o := o.(type) {
	case state.Bridge:
		set := vsctl + "set bridge " + o.Name + " "
		list := []fault{
			{"", vsctl + "del-br " + o.Name},
			{"FailMode", set + "fail_mode=" + otherMode(o.FailMode)},
			{"HWAddr", set + `other_config:hwaddr='"02:00:00:00:00:77"'`},
			{"MTU", vsctl + "set interface " + o.Name + " mtu_request=1300"},
			{"Controller", vsctl + "set-controller " + o.Name + " tcp:127.0.0.1:6653"},
			{"SpanningTree", set + "stp_enable=true"},
			{"Error", vsctl + "set port " + o.Name + " tag=7"},
		}
		if o.FailMode == state.FailStandalone { // else they are state.Flows
			list = append(list, fault{"Flows", "ovs-ofctl del-flows " + o.Name})
		}
		return list
	case state.Tunnel:
		set := vsctl + "set interface " + o.Name + " "
		return []fault{
			{"", vsctl + "del-port " + o.Name},
			{"Bridge", move(o.Name, o.Bridge, other)},
			{"Type", set + "type=vxlan"},
			{"Remote", set + "options:remote_ip=172.16.32.250"},
			{"OFPort", set + "ofport_request=64999"},
			{"Local", set + "options:local_ip=172.16.32.251"},
			{"Key", set + "options:key=77"},
			{"Csum", set + "options:csum=true"},
			{"DstPort", set + "options:dst_port=7777"},
			{"Options", set + "options:ttl=7"},
			{"Options", vsctl + "remove interface " + o.Name + " options ttl"},
			{"Options", set + "options:df_default=false"},
			{"Error", set + "options:tos=3"},
			{"Error", vsctl + "remove interface " + o.Name + " options tos"},
			{"BFD", set + "bfd:enable=true"},
			{"Peer", set + "external_ids:ovs-gre.peer=nobody"},
			{"Error", vsctl + "set port " + o.Name + " protected=false"},
		}
	case state.Port:
		set := vsctl + "set port " + o.Name + " "
		return []fault{
			{"", vsctl + "del-port " + o.Name},
			{"Bridge", move(o.Name, o.Bridge, other)},
			{"ContainerID", vsctl + "set interface " + o.Name + " external_ids:ovs-gre.container-id=another"},
			{"IfName", vsctl + "set interface " + o.Name + " external_ids:ovs-gre.ifname=eth7"},
			{"Protected", fmt.Sprintf("%sprotected=%t", set, !o.Protected)},
			{"Error", set + "tag=7"},
		}
	case state.Sysctl:
		value := "0"
		if o.Value == "0" {
			value = "1"
		}
		return []fault{{"Value", "echo " + value + " >/proc/sys/" + o.Key}}
	case state.Link:
		list := []fault{{"Up", "ip link set " + o.Name + " down"}}
		if o.Master != "" {
			list = append(list, fault{"Master", "ip link set " + o.Name + " nomaster"})
		}
		if o.MTU != 0 {
			list = append(list, fault{"MTU", "ip link set " + o.Name + " mtu 1300"})
		}
		if o.MAC != "" {
			list = append(list, fault{"MAC", "ip link set " + o.Name + " address 02:00:00:00:00:78"})
		}
		return list
	case state.Addr:
		return []fault{{"", fmt.Sprintf("ip addr del %s dev %s", o.Prefix, o.Dev)}}
	case state.Neigh:
		return []fault{
			{"", fmt.Sprintf("ip neigh del %s dev %s", o.IP, o.Dev)},
			{"MAC", fmt.Sprintf("ip neigh replace %s lladdr 02:00:00:00:00:79 dev %s nud permanent", o.IP, o.Dev)},
		}
	case state.Route:
		ip := "ip route"
		if o.Dst.Addr().Is6() {
			ip = "ip -6 route"
		}
		return []fault{
			{"", fmt.Sprintf("%s del %s", ip, o.Dst)},
			{"Via", fmt.Sprintf("%s replace %s dev lo src %s proto %d", ip, o.Dst, o.Src, state.RouteProtocol)},
			{"Dev", fmt.Sprintf("%s replace unreachable %s proto %d", ip, o.Dst, state.RouteProtocol)},
		}
	}
	return others(o)
}

// others are the faults of what is not made by ip or ovs-vsctl.
func others(o state.Object) []fault {
	switch o := o.(type) {
	case state.Masquerade:
		table := "inet ovs-gre-" + o.Network
		return []fault{
			{"", "nft delete table " + table},
			{"Sources", "nft flush set " + table + " sources4"},
			{"Excluded", "nft add element " + table + " excluded4 '{ 203.0.113.0/24 }'"},
		}
	case state.Forward:
		command := strings.Replace(o.String(), " -A FORWARD", " -D FORWARD", 1)
		return []fault{{"", command}}
	case state.Flows:
		list := []fault{
			{"", "ovs-ofctl del-flows " + o.Bridge},
			{"Wrong", "ovs-ofctl add-flow " + o.Bridge + " priority=9,actions=NORMAL"},
		}
		if o.Fan.IsZero() {
			peer, _, _ := strings.Cut(o.Peers, " ")
			return append(list, fault{"Peers", "ovs-ofctl del-flows " + o.Bridge + " tun_src=" + peer})
		}
		return append(list,
			fault{"Fan", "ovs-ofctl del-flows " + o.Bridge + " tun_src=" + o.Fan.Underlay.String()},
			fault{"Self", "ovs-ofctl --strict del-flows " + o.Bridge + " priority=4,tun_src=" + o.Self.String()})
	case state.FDB:
		return []fault{
			{"", fmt.Sprintf("ovs-appctl fdb/del %s 0 %s", o.Bridge, o.MAC)},
			{"Port", fmt.Sprintf("p=$(%slist-ports %s | grep -vx %s | head -n 1); ovs-appctl fdb/add %[2]s ${p:-%[2]s} 0 %[4]s", vsctl, o.Bridge, o.Port, o.MAC)},
		}
	}
	return nil
}

// otherMode is the other fail_mode.
func otherMode(mode string) string {
	if mode == state.FailSecure {
		return state.FailStandalone
	}
	return state.FailSecure
}

// move takes a port from one bridge to another.
func move(port, from, to string) string {
	return fmt.Sprintf("p=$(%[1]sget port %[2]s _uuid); %[1]sremove bridge %[3]s ports $p -- add bridge %[4]s ports $p", vsctl, port, from, to)
}
