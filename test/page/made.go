// Package page looks at the agent's page and at the picture of a mesh in a real
// browser, with meshes of few and of many hosts that are made up here.
package page

import (
	"fmt"
	"net/netip"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/page"
)

// Mesh is a network of n hosts. Of more than three, one host is dead, two lose
// some packets to each other, and one runs no agent.
func Mesh(n int) *page.Mesh {
	m := &page.Mesh{Network: "ovsnet", Self: "host1", Rows: map[string]page.Row{}}
	name := func(i int) string { return fmt.Sprintf("host%d", i+1) }
	for i := range n {
		m.Hosts = append(m.Hosts, config.Node{
			Name: name(i), Address: netip.AddrFrom4([4]byte{172, 16, byte(32 + i/200), byte(100 + i%150)}),
			Subnets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(88 + i/256), byte(i), 0}), 24)},
		})
	}
	dead, lossy, mute := n*2/3, n/3, n/2
	for i := range n {
		r := page.Row{Network: m.Network, Host: name(i)}
		for j := range n {
			e := page.Edge{To: name(j), Tunnel: "up", Sent: 20, RTT: 0.2 + float64((i*7+j*7)%13)/20}
			switch {
			case i == j:
				continue
			case n > 3 && j == dead:
				e.Lost, e.RTT, e.Silent = 20, 0, true
			case n > 3 && (i == lossy && j == 1 || i == 1 && j == lossy):
				e.Lost = 3
			}
			r.Edges = append(r.Edges, e)
		}
		if n <= 3 || i != dead && i != mute {
			m.Rows[name(i)] = r
		}
	}
	return m
}

// View is the page of the first of n hosts.
func View(n int) *page.View {
	v := &page.View{Mesh: Mesh(n), Version: "1.2.3", At: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	net := page.Network{Name: "ovsnet", File: "/etc/cni/net.d/10-ovs-gre.conflist", Segment: "container", Bridge: "obr0", Tunnel: "gre", MTU: 1462, Peers: n - 1, Tunnels: n - 1}
	for i := range 4 {
		net.Containers = append(net.Containers, page.Container{ID: fmt.Sprintf("%064x", 0xabcdef0123+i), IfName: "eth0", Port: fmt.Sprintf("og%013x", i)})
	}
	if n > 3 {
		net.Drift = []page.Drift{{Text: "tunnel to host2: remote_ip is 172.16.32.99, should be 172.16.32.101", Command: "ovs-grectl up /etc/cni/net.d/10-ovs-gre.conflist"}}
	}
	v.Networks = []page.Network{net}
	return v
}
