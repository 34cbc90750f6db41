package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

// A Hook is a netfilter hook.
type Hook byte

// The hooks that FindDrops knows.
const (
	Input      Hook = iota // packets for this host
	Prerouting             // incoming packets before routing and connection tracking (raw)
	Forward                // packets for other hosts
)

// A Drop names a rule that drops packets of a class.
type Drop struct {
	// Sure: the rule drops all packets of the class that reach it; see Doubt.
	Sure bool
	// Part: the rule drops some of them. With neither Sure nor Part, it may drop
	// some: it has conditions that FindDrops does not know.
	Part bool
	// By describes the rule, or the chain's policy.
	By string
	// Family is ip, ip6 or inet; with Table and Chain it names the chain of By.
	Family, Table, Chain string
	// IPTables: the chain is one that iptables makes. Legacy: iptables-legacy.
	IPTables, Legacy bool
	// Doubt: an earlier rule with conditions that FindDrops does not know may
	// accept the packets.
	Doubt bool
}

// Docker reports whether the rule is in the table of Docker's nftables backend: no
// rule of another table can accept its packets.
func (d Drop) Docker() bool { return d.Table == dockerTable }

// ListCommand is the command that lists the chain.
func (d Drop) ListCommand() string {
	family := map[string]string{"ip6": "ip6tables"}[d.Family]
	if family == "" {
		family = "iptables"
	}
	if d.Legacy {
		family += "-legacy"
	}
	if d.IPTables {
		return fmt.Sprintf("%s -t %s -S %s", family, d.Table, d.Chain)
	}
	return fmt.Sprintf("nft list chain %s %s %s", d.Family, d.Table, d.Chain)
}

// AcceptCommand is the command that adds a rule in front of all others of the chain
// which accepts packets that come by a link for a subnet. Docker appends its rules in
// raw, so that they stay behind it.
func (d Drop) AcceptCommand(in string, subnet netip.Prefix) string {
	cmd, daddr := "iptables", "ip daddr"
	if subnet.Addr().Is6() {
		cmd, daddr = "ip6tables", "ip6 daddr"
	}
	if d.Legacy {
		cmd += "-legacy"
	}
	if d.IPTables {
		return fmt.Sprintf("%s -w -t %s -I %s -i %s -d %s -j ACCEPT", cmd, d.Table, d.Chain, in, subnet)
	}
	return fmt.Sprintf("nft insert rule %s %s %s iifname %s %s %s accept", d.Family, d.Table, d.Chain, in, daddr, subnet)
}

func (ft *outcome) drop() *Drop {
	at, sure, partly := ft.by, ft.drops, false
	if !sure {
		i := ft.doubtful()
		if i < 0 {
			return nil
		}
		at, partly = ft.partialDrops[i].place, ft.partialDrops[i].match == part
	}
	c := at.chain
	return &Drop{
		Sure: sure, Part: partly, Doubt: sure && ft.unsure, By: at.String(),
		Family: familyName(c.family), Table: c.table, Chain: c.name, IPTables: ft.base.iptables, Legacy: c.legacy,
	}
}

// doubtful is the index of the first rule that drops some of the packets, or of the
// first that may drop some; -1 is none.
func (ft *outcome) doubtful() int {
	first := -1
	for i, d := range ft.partialDrops {
		if d.match == part {
			return i
		}
		if first < 0 && d.match == perhaps {
			first = i
		}
	}
	return first
}

// FindDrops returns for each class of packets the rule that drops it at the hook; nil
// is none. The error wraps ErrUnsupported on a kernel without nf_tables.
func FindDrops(ctx context.Context, hook Hook, classes ...Packet) ([]*Drop, error) {
	number, table, chainName, keep := uint32(unix.NF_INET_LOCAL_IN), "filter", "INPUT", func(chain) bool { return true }
	switch hook {
	case Prerouting:
		const raw = -300 // NF_IP_PRI_RAW
		number, table, chainName, keep = unix.NF_INET_PRE_ROUTING, "raw", "PREROUTING", func(c chain) bool { return c.priority <= raw }
	case Forward:
		number, chainName = unix.NF_INET_FORWARD, "FORWARD"
	}
	out := make([]*Drop, len(classes))
	meet := func(s *ruleset, bases []baseChain) error {
		for i := range classes {
			for _, g := range bases {
				if !g.sees(classes[i].IPv6) || out[i] != nil && out[i].Sure {
					continue
				}
				ft, err := s.outcomeAt(g, &classes[i], "")
				if err != nil {
					return err
				}
				if d := ft.drop(); d != nil && (d.Sure || out[i] == nil) {
					out[i] = d
				}
			}
		}
		return nil
	}
	err := read(ctx, func(r *reader) error {
		clear(out)
		rules := newRuleset(r)
		bases, err := rules.baseChains(number, keep)
		if err != nil {
			return err
		}
		return meet(rules, bases)
	})
	old := newRuleset(nil)
	bases, failed := old.legacyBaseChains(ctx, table, chainName)
	if failed == nil {
		failed = meet(old, bases)
	}
	return out, errors.Join(err, failed)
}

// An Obstacle is a rule that drops packets which a Forward should accept.
type Obstacle struct {
	Forward state.Forward
	Drop
	// Mendable: Apply can accept the packets by rules in front of it, which are
	// missing.
	Mendable bool
}

// Obstacles lists the rules that drop packets of the Forwards in want, also those
// that Apply can do nothing about.
func (b *Backend) Obstacles(ctx context.Context, want state.Set) ([]Obstacle, error) {
	_, surveys, err := b.look(ctx, want)
	var list []Obstacle
	for _, s := range surveys {
		for _, o := range s.obstacles {
			if d := o.drop(); d != nil {
				list = append(list, Obstacle{o.f, *d, o.remedyKind == mendable})
			}
		}
	}
	return list, err
}
