package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/state"
)

// A Hook is where packets meet chains.
type Hook byte

// The hooks that can be asked about.
const (
	Input      Hook = iota // what is for this host
	Prerouting             // all that comes, before it is routed or its connection known
	Forward                // what is for others
)

// A Drop says that packets are dropped, and where.
type Drop struct {
	// Sure: all of them are dropped, but for those that an earlier rule lets
	// by which we cannot judge.
	Sure bool
	// Part: some of them are dropped. With neither, it may be that some are.
	Part bool
	// By names the rule, or the chain's policy.
	By string
	// Family is ip, ip6 or inet; with Table and Chain it is where By stands.
	Family, Table, Chain string
	// IPTables: the chain is iptables' own. Legacy: the old iptables'.
	IPTables, Legacy bool
	// Doubt: an earlier rule may let them by.
	Doubt bool
}

// Docker reports whether it stands in the table of Docker's nftables backend,
// which no rule of another table can overrule.
func (d Drop) Docker() bool { return d.Table == dockerTable }

// List is the command that lists the chain.
func (d Drop) List() string {
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

// Accept is the command that lets packets by, which come by a link for a
// subnet, in front of all rules of the chain. In raw, Docker puts its own behind.
func (d Drop) Accept(in string, subnet netip.Prefix) string {
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
		Family: familyName(c.family), Table: c.table, Chain: c.name, IPTables: ft.gate.iptables, Legacy: c.legacy,
	}
}

// doubtful is the first rule that drops some of the packets, or perhaps; -1 is none.
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

// Ask says of each class of packets what drops it at the hook, nil where
// nothing does. The error wraps ErrUnsupported on a kernel without nf_tables.
func Ask(ctx context.Context, hook Hook, classes ...Packet) ([]*Drop, error) {
	number, table, chainName, keep := uint32(unix.NF_INET_LOCAL_IN), "filter", "INPUT", func(chain) bool { return true }
	switch hook {
	case Prerouting:
		const raw = -300 // NF_IP_PRI_RAW
		number, table, chainName, keep = unix.NF_INET_PRE_ROUTING, "raw", "PREROUTING", func(c chain) bool { return c.priority <= raw }
	case Forward:
		number, chainName = unix.NF_INET_FORWARD, "FORWARD"
	}
	out := make([]*Drop, len(classes))
	meet := func(s *ruleset, gates []baseChain) error {
		for i := range classes {
			for _, g := range gates {
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
		gates, err := rules.baseChains(number, keep)
		if err != nil {
			return err
		}
		return meet(rules, gates)
	})
	old := newRuleset(nil)
	gates, failed := old.legacyGates(ctx, table, chainName)
	if failed == nil {
		failed = meet(old, gates)
	}
	return out, errors.Join(err, failed)
}

// An Obstacle is what drops packets that a Forward should accept.
type Obstacle struct {
	Forward state.Forward
	Drop
	// Mendable: rules of ours in front of it accept them; they are missing.
	Mendable bool
}

// Obstacles says what drops packets of the Forwards in want, in spite of all
// that Apply can do, too.
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
