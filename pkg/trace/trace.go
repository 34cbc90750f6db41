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

// A Question is what to follow.
type Question struct {
	// Container is a container's ID or the beginning of it, the name of its
	// port, or its address; or the address of a peer or a peer's container,
	// whose packet comes in here.
	Container string
	To        netip.Addr
	// Proto is the IP protocol, Port TCP's or UDP's destination port. The zero
	// Proto is ICMP.
	Proto uint8
	Port  uint16
}

// Parse reads a question as a person types it. The error names what is wrong.
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

// A Step is one thing on the way that lets the packet by, or does not.
type Step struct {
	// Step names it: Steps lists all names.
	Step string `json:"step"`
	// Passes: it lets the packet by, as far as can be told.
	Passes bool `json:"passes"`
	// Seen is what it does, in one sentence.
	Seen string `json:"seen"`
	// Command mends it, typed into a shell here or, where it ends in "# on
	// PEER", there; "" where there is nothing to mend, or none does.
	Command string `json:"command,omitempty"`
}

// The steps' names.
const (
	StepContainer = "container"       // its interface and address
	StepOwnRoute  = "container route" // its routing table
	StepPort      = "port"            // the host's end of its veth pair, and its OVS port
	StepOVS       = "OVS bridge"      // what the containers' bridge does with the frame
	StepForward   = "forwarding"      // whether the kernel forwards
	StepRoute     = "route"           // the host's routing table
	StepReverse   = "rp_filter"       // the host's reverse path filter
	StepRaw       = "raw filter"      // the packet filter before connection tracking
	StepFilter    = "forward filter"  // the packet filter of what is forwarded
	StepInput     = "input filter"    // the packet filter of what is for the host
	StepNeighbour = "neighbour"       // the MAC address of the next hop
	StepTunnel    = "tunnel"          // the tunnel to or from the peer
	StepUnderlay  = "underlay"        // the way to the peer's host
	StepMTU       = "MTU"             // whether the container's largest packets get through
	StepPeer      = "peer"            // the network on the peer's host
	StepTarget    = "destination"     // whether the destination is there, and answers
)

// A Trace is what becomes of a packet on this host.
type Trace struct {
	Network string `json:"network"`
	// ContainerID is the container's, IfName its interface; "" where the packet
	// comes from a peer.
	ContainerID string     `json:"containerID,omitempty"`
	IfName      string     `json:"ifName,omitempty"`
	From        netip.Addr `json:"from"`
	To          netip.Addr `json:"to"`
	Protocol    string     `json:"protocol"`
	Port        uint16     `json:"port,omitempty"`
	Steps       []Step     `json:"steps"`
	// Arrives: no step stops it. What is behind this host's last step is known
	// only where an echo request was answered.
	Arrives bool `json:"arrives"`
	// Stopped is the step that stops it; "" where it arrives.
	Stopped string `json:"stopped,omitempty"`
	// Peer is the node that the packet goes on to, Next the command that
	// follows it there; "" where it stays here, or goes outside.
	Peer string `json:"peer,omitempty"`
	Next string `json:"next,omitempty"`
}

// Last is the step that the trace ends with.
func (t Trace) Last() Step {
	if len(t.Steps) == 0 {
		return Step{}
	}
	return t.Steps[len(t.Steps)-1]
}

// ErrUnknown is wrapped by errors about a container that no network of this
// host has.
var ErrUnknown = errors.New("no such container here")

// Bound is the most that Follow takes.
const Bound = 15 * time.Second

// Follow follows a packet of a network that one of the files names. step,
// unless it is nil, is told what is looked at. The error is about what kept it
// from looking; it wraps ErrUnknown where the question's container is not here.
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

// follow takes the steps in order, until one stops the packet.
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

// pass notes a step that lets the packet by.
func (s *tracer) pass(name, format string, args ...any) error {
	s.Steps = append(s.Steps, Step{Step: name, Passes: true, Seen: fmt.Sprintf(format, args...)})
	return nil
}

// stop notes the step that stops the packet.
func (s *tracer) stop(name, command, format string, args ...any) error {
	s.Steps = append(s.Steps, Step{Step: name, Seen: fmt.Sprintf(format, args...), Command: command})
	return errDone
}
