package ovs

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A Frame is one Ethernet frame with an IP packet in it.
type Frame struct {
	// Port is the port of Bridge that the frame comes in by.
	Bridge, Port string
	// SrcMAC and DstMAC with colons.
	SrcMAC, DstMAC string
	From, To       netip.Addr
	// Proto is the IP protocol, DstPort TCP's or UDP's destination port.
	Proto   uint8
	DstPort uint16
	// TunSrc and TunDst are the outer addresses of the tunnel that it comes by,
	// where Port is one that all peers share; else the zero Addr.
	TunSrc, TunDst netip.Addr
}

// A Fate is what ovs-vswitchd would do with a frame.
type Fate struct {
	// Ports are the ports that the frame leaves by, of all bridges, without tunnels.
	Ports []string
	// Remotes are the far ends of the tunnels that it leaves by.
	Remotes []netip.Addr
	// Why is the last step that ovs-vswitchd has a text about; "" is none.
	Why string
	// Text is the whole output of ofproto/trace.
	Text string
}

// Reaches reports whether the frame leaves by a port.
func (f Fate) Reaches(port string) bool { return slices.Contains(f.Ports, port) }

// Trace asks ovs-vswitchd what it would do with a frame (ofproto/trace in
// ovs-vswitchd(8)). No packet is sent. The error wraps ErrRefused where there is no
// such port.
func (c *Control) Trace(ctx context.Context, f Frame) (Fate, error) {
	show, err := c.Call(ctx, "dpif/show")
	if err != nil {
		return Fate{}, err
	}
	ports := datapathPorts(show)
	at := slices.IndexFunc(ports, func(p datapathPort) bool { return p.bridge == f.Bridge && p.name == f.Port })
	if at < 0 {
		return Fate{}, fmt.Errorf("%w: OVS bridge %s has no port %s", ErrRefused, f.Bridge, f.Port)
	}
	text, err := c.Call(ctx, "ofproto/trace", f.Bridge, f.flow(ports[at].ofport))
	if err != nil {
		return Fate{}, err
	}
	return fateOf(text, ports), nil
}

// flow is the frame as ovs-fields(7) writes it.
func (f Frame) flow(ofport string) string {
	family, src, dst := "ip", "nw_src", "nw_dst"
	proto := map[uint8]string{1: "icmp", 6: "tcp", 17: "udp"}[f.Proto]
	transport := map[uint8]string{6: "tcp_dst", 17: "udp_dst"}[f.Proto]
	if f.To.Is6() {
		family, src, dst = "ipv6", "ipv6_src", "ipv6_dst"
		proto = map[uint8]string{58: "icmp6", 6: "tcp6", 17: "udp6"}[f.Proto]
	}
	s := []string{"in_port=" + ofport, "dl_src=" + f.SrcMAC, "dl_dst=" + f.DstMAC}
	if proto == "" {
		s = append(s, family, "nw_proto="+strconv.Itoa(int(f.Proto)))
	} else {
		s = append(s, proto)
	}
	s = append(s, src+"="+f.From.String(), dst+"="+f.To.String(), "nw_ttl=64")
	if f.DstPort != 0 && transport != "" {
		s = append(s, transport+"="+strconv.Itoa(int(f.DstPort)))
	}
	if f.TunSrc.IsValid() {
		tun := "tun_"
		if f.TunSrc.Is6() {
			tun = "tun_ipv6_"
		}
		s = append(s, tun+"src="+f.TunSrc.String(), tun+"dst="+f.TunDst.String())
	}
	return strings.Join(s, ",")
}

// A datapathPort is a port with its numbers in OpenFlow and in the datapath.
type datapathPort struct{ bridge, name, ofport, number string }

var portLine = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^    (\S+) (\d+)/(\d+|none):`)
})

// datapathPorts reads dpif/show.
func datapathPorts(show string) []datapathPort {
	var list []datapathPort
	bridge := ""
	for line := range strings.Lines(show) {
		if m := portLine().FindStringSubmatch(line); m != nil {
			list = append(list, datapathPort{bridge, m[1], m[2], m[3]})
		} else if name, ok := strings.CutSuffix(strings.TrimSpace(line), ":"); ok && strings.HasPrefix(line, "  ") {
			bridge = name
		}
	}
	for i := range list {
		if list[i].ofport == "65534" { // OFPP_LOCAL
			list[i].ofport = local
		}
	}
	return list
}

// tunnelled matches the outer destination of a tunnel in the actions of the kernel's
// and of the userspace datapath.
var tunnelled = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?:tunnel\([^)]*?|ipv[46]\(src=[^,]*,)(?:ipv6_)?dst=([0-9a-fA-F:.]+)`)
})

func fateOf(text string, ports []datapathPort) Fate {
	f := Fate{Text: text}
	_, actions, _ := strings.Cut(text, "Datapath actions: ")
	actions, _, _ = strings.Cut(actions, "\n")
	for _, m := range tunnelled().FindAllStringSubmatch(actions, -1) {
		if a, err := netip.ParseAddr(m[1]); err == nil {
			f.Remotes = append(f.Remotes, a)
		}
	}
	for _, a := range topLevel(actions) {
		for _, p := range ports {
			if p.number == a {
				f.Ports = append(f.Ports, p.name)
			}
		}
	}
	detail := "" // the last one, such as that it asks for the MAC address of a tunnel's far end
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if words, said := strings.CutPrefix(line, "-> "); said {
			detail = words
		}
		if words, said := strings.CutPrefix(line, ">> "); said || strings.Contains(line, "drop") && !strings.HasPrefix(line, "Datapath") {
			f.Why = strings.Trim(strings.TrimPrefix(words, "-> "), "> ")
		}
	}
	if f.Why == "" {
		f.Why = detail
	}
	return f
}

// topLevel splits a list by commas, but for those in brackets.
func topLevel(s string) []string {
	var list []string
	depth, begin := 0, 0
	for i, r := range s {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				list, begin = append(list, s[begin:i]), i+1
			}
		}
	}
	return append(list, s[begin:])
}
