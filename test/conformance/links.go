package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// A link is what ip says of one.
type link struct {
	IfName   string   `json:"ifname"`
	Address  string   `json:"address"`
	MTU      int      `json:"mtu"`
	Flags    []string `json:"flags"`
	AddrInfo []struct {
		Local     string `json:"local"`
		PrefixLen int    `json:"prefixlen"`
	} `json:"addr_info"`
}

func (l link) has(p netip.Prefix) bool {
	for _, a := range l.AddrInfo {
		if local, err := netip.ParseAddr(a.Local); err == nil && netip.PrefixFrom(local, a.PrefixLen) == p {
			return true
		}
	}
	return false
}

// links lists the links of the host, or of a box, by name.
func (t *try) links(b *box) (map[string]link, error) {
	var out string
	var err error
	if b == nil {
		out, err = t.host.Output(t.ctx, "ip", "-j", "address")
	} else {
		out, err = t.inside(b, "ip -j address")
	}
	var list []link
	if err == nil {
		err = json.Unmarshal([]byte(out), &list)
	}
	m := map[string]link{}
	for _, l := range list {
		m[l.IfName] = l
	}
	return m, err
}

// fits wants the kernel to be as the result says.
func (t *try) fits(b *box) error {
	inside, err1 := t.links(b)
	outside, err2 := t.links(nil)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	for _, i := range b.result.Interfaces {
		l, ok := outside[i.Name]
		if i.Sandbox != "" {
			l, ok = inside[i.Name]
		}
		switch {
		case !ok:
			return fmt.Errorf("interface %s of the result does not exist", i.Name)
		case i.Mac != "" && i.Mac != l.Address:
			return fmt.Errorf("interface %s: mac %s in the result, %s in the kernel", i.Name, i.Mac, l.Address)
		case i.Mtu != 0 && i.Mtu != l.MTU:
			return fmt.Errorf("interface %s: mtu %d in the result, %d in the kernel", i.Name, i.Mtu, l.MTU)
		}
	}
	l, ok := inside[b.ifname]
	if !ok || !slices.Contains(l.Flags, "UP") {
		return fmt.Errorf("%s in the container: there %v, flags %v", b.ifname, ok, l.Flags)
	}
	for _, p := range b.result.addrs() {
		if !l.has(p) {
			return fmt.Errorf("%s has not the address %s of the result", b.ifname, p)
		}
	}
	return nil
}

// holds lists what host-local has given out in a network: addresses by container.
func (t *try) holds(n network) (map[string][]string, error) {
	out, err := t.output(`cd /var/lib/cni/networks/` + n.name + ` 2>/dev/null || exit 0
for f in *; do case $f in lock|last_reserved_ip*) ;; *) echo "$f $(head -n1 "$f" | tr -d '\r')";; esac; done`)
	m := map[string][]string{}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 2 {
			m[f[1]] = append(m[f[1]], f[0])
		}
	}
	return m, err
}

// freed wants host-local to hold nothing for a box.
func (t *try) freed(b *box) error {
	held, err := t.holds(b.net)
	if err == nil && len(held[b.id]) > 0 {
		err = fmt.Errorf("host-local still holds %v for %s", held[b.id], b.id)
	}
	return err
}

// equal compares JSON, whatever its order of keys.
func equal(a, b string) error {
	var x, y any
	if err := errors.Join(json.Unmarshal([]byte(a), &x), json.Unmarshal([]byte(b), &y)); err != nil {
		return err
	}
	if !reflect.DeepEqual(x, y) {
		return fmt.Errorf("%s is not %s", short(a), short(b))
	}
	return nil
}

// together runs f for all boxes at once.
func together(list []*box, f func(*box) error) error {
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, b := range list {
		wg.Go(func() { errs[i] = f(b) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// distinct wants no address and no MAC twice.
func distinct(list []*box) error {
	seen := map[string]string{}
	for _, b := range list {
		keys := []string{}
		for _, p := range b.result.addrs() {
			keys = append(keys, p.Addr().String())
		}
		if i := b.result.inner(b); i != nil {
			if _, err := net.ParseMAC(i.Mac); err != nil {
				return err
			}
			keys = append(keys, i.Mac)
		}
		if len(keys) < 2 {
			return fmt.Errorf("%s %s has %v", b.id, b.ifname, keys)
		}
		for _, k := range keys {
			if other, twice := seen[k]; twice {
				return fmt.Errorf("%s is given to %s and %s %s", k, other, b.id, b.ifname)
			}
			seen[k] = b.id + " " + b.ifname
		}
	}
	return nil
}
