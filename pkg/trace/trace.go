package trace

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/ovs"
)

// A Question tells which packet to follow.
type Question struct {
	// Container is the source: a container's ID or the beginning of it, the name of
	// its port, or its address; or the address of a peer or of a peer's container,
	// whose packet comes to this host.
	Container string
	// To is the destination.
	To netip.Addr
	// Proto is the IP protocol; 0 is ICMP. Port is the destination port of TCP or UDP;
	// 0 is none.
	Proto uint8
	Port  uint16
}

// Parse reads the arguments of ovs-grectl trace; proto and port may be "". The error names
// the argument and its value.
func Parse(container, to, proto, port string) (Question, error) {
	q := Question{Container: container, Proto: 1}
	var err error
	if q.To, err = netip.ParseAddr(to); err != nil || q.To.Zone() != "" {
		return q, fmt.Errorf("destination %q: want an IP address", to)
	}
	q.To = q.To.Unmap()
	if q.To.Is6() {
		q.Proto = protoICMPv6
	}
	switch strings.ToLower(proto) {
	case "", "icmp", "icmp6":
	case "tcp":
		q.Proto = protoTCP
	case "udp":
		q.Proto = protoUDP
	default:
		n, err := strconv.ParseUint(proto, 10, 8)
		if err != nil || n == 0 {
			return q, fmt.Errorf("protocol %q: want icmp, tcp, udp, or a number from 1 to 255", proto)
		}
		q.Proto = uint8(n)
	}
	if port == "" {
		return q, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || q.Proto != protoTCP && q.Proto != protoUDP {
		return q, fmt.Errorf("port %q: want a number from 1 to 65535, behind tcp or udp", port)
	}
	q.Port = uint16(n)
	return q, nil
}

// IP protocol numbers (IANA).
const (
	protoTCP    = 6
	protoUDP    = 17
	protoGRE    = 47
	protoICMPv6 = 58
)

func (q Question) protocol() string {
	switch q.Proto {
	case 1, protoICMPv6:
		return "icmp"
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	}
	return strconv.Itoa(int(q.Proto))
}

// A Step is one station of the packet, which passes or stops it.
type Step struct {
	// Step is its name, one of the constants StepContainer to StepTarget.
	Step string `json:"step"`
	// Passes: the packet passes, as far as is known.
	Passes bool `json:"passes"`
	// Seen tells in one sentence what the step does with the packet.
	Seen string `json:"seen"`
	// Command is a shell command that mends a step which stops the packet, on this
	// host or, if it ends in "# on PEER", on the peer; "" is none.
	Command string `json:"command,omitempty"`
}

// The names of the steps.
const (
	StepContainer = "container"       // the container's interface and address
	StepOwnRoute  = "container route" // the container's routing table
	StepPort      = "port"            // the host's end of the veth pair, and the OVS port
	StepOVS       = "OVS bridge"      // the containers' OVS bridge
	StepForward   = "forwarding"      // IP forwarding of the kernel
	StepRoute     = "route"           // the host's routing table
	StepReverse   = "rp_filter"       // the host's reverse path filter
	StepRaw       = "raw filter"      // the packet filter before connection tracking
	StepFilter    = "forward filter"  // the packet filter for forwarded packets
	StepInput     = "input filter"    // the packet filter for packets to the host
	StepNeighbour = "neighbour"       // the MAC address of the next hop
	StepTunnel    = "tunnel"          // the tunnel to or from the peer
	StepUnderlay  = "underlay"        // the underlay to the peer's host
	StepMTU       = "MTU"             // the size of the container's largest packets
	StepPeer      = "peer"            // the network on the peer's host
	StepTarget    = "destination"     // the destination and its answers
)

// A Trace has the steps of a packet on this host.
type Trace struct {
	Network string `json:"network"`
	// ContainerID and IfName are the source container's; "" where the packet comes
	// from a peer.
	ContainerID string `json:"containerID,omitempty"`
	IfName      string `json:"ifName,omitempty"`
	// From and To are the packet's addresses.
	From netip.Addr `json:"from"`
	To   netip.Addr `json:"to"`
	// Protocol is icmp, tcp, udp or a number.
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port,omitempty"`
	Steps    []Step `json:"steps"`
	// Arrives: no step stops the packet. Behind the last step on this host that is
	// known only where an echo request was answered.
	Arrives bool `json:"arrives"`
	// Stopped is the name of the step that stops the packet; "" where it arrives.
	Stopped string `json:"stopped,omitempty"`
	// Peer is the node that the packet goes on to, Next the command that follows it
	// there; both are "" where it stays on this host, or leaves the network.
	Peer string `json:"peer,omitempty"`
	Next string `json:"next,omitempty"`
}

// Last is the last step; the zero Step if there is none.
func (t Trace) Last() Step {
	if len(t.Steps) == 0 {
		return Step{}
	}
	return t.Steps[len(t.Steps)-1]
}

// ErrUnknown is wrapped by the error about a container that is in no network of this
// host.
var ErrUnknown = errors.New("no such container here")

// Bound is the longest time that Follow takes.
const Bound = 15 * time.Second

// Follow follows a packet of the network, of those of files, that its source is in. step,
// if not nil, is called with the name of each object that is checked next. The error wraps
// ErrUnknown where no network has the source; other errors are about a check that failed.
// A packet that is stopped is no error.
func Follow(ctx context.Context, files []conflist.File, q Question, step func(string)) (Trace, error) {
	ctx, cancel := context.WithTimeout(ctx, Bound)
	defer cancel()
	var errs []error
	for _, f := range files {
		if f.Err != nil || f.SupersededBy != "" {
			continue
		}
		s, err := open(ctx, f, q, step)
		if errors.Is(err, ErrUnknown) {
			continue
		}
		if errors.Is(err, fault.ErrUnavailable) && s != nil {
			_ = s.stop(StepOVS, "systemctl restart "+ovs.Service(), "%v", err)
			s.Stopped = StepOVS
			return s.Trace, nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("network %s: %w", f.Name(), err))
			continue
		}
		err = s.follow()
		s.close()
		return s.Trace, err
	}
	if len(errs) > 0 {
		return Trace{}, errors.Join(errs...)
	}
	return Trace{}, fmt.Errorf("container %q: %w: ovs-grectl status -v lists them", q.Container, ErrUnknown)
}

// follow runs the steps in order, until one stops the packet.
func (s *tracer) follow() error {
	steps := s.outgoing()
	switch {
	case s.others:
		steps = s.throughHost()
	case s.end == nil:
		steps = s.incoming()
	}
	for _, look := range steps {
		if err := look(); err != nil && !errors.Is(err, errDone) {
			return err
		} else if err != nil {
			break
		}
	}
	i := slices.IndexFunc(s.Steps, func(st Step) bool { return !st.Passes })
	if s.Arrives = i < 0; i >= 0 {
		s.Stopped = s.Steps[i].Step
	}
	return nil
}

// errDone ends the steps: the packet is stopped, or has arrived.
var errDone = errors.New("done")

// pass adds a step that the packet passes.
func (s *tracer) pass(name, format string, args ...any) error {
	s.Steps = append(s.Steps, Step{Step: name, Passes: true, Seen: fmt.Sprintf(format, args...)})
	return nil
}

// stop adds the step that stops the packet.
func (s *tracer) stop(name, command, format string, args ...any) error {
	s.Steps = append(s.Steps, Step{Step: name, Seen: fmt.Sprintf(format, args...), Command: command})
	return errDone
}
