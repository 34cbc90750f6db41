package config

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

func stringOf(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s)
	return s
}

type setter[C any] = func(p *problems, c C, key string, raw json.RawMessage)

func base(f setter[*Base]) setter[any] {
	return func(p *problems, c any, key string, raw json.RawMessage) {
		switch c := c.(type) {
		case *Network:
			f(p, &c.Base, key, raw)
		case *Routes:
			f(p, &c.Base, key, raw)
		}
	}
}

func network(f setter[*Network]) setter[any] {
	return func(p *problems, c any, key string, raw json.RawMessage) { f(p, c.(*Network), key, raw) }
}

func routes(f setter[*Routes]) setter[any] {
	return func(p *problems, c any, key string, raw json.RawMessage) { f(p, c.(*Routes), key, raw) }
}

// field returns a setter that takes every value of its type.
func field[C, T any](at func(C) *T) setter[C] {
	return func(p *problems, c C, key string, raw json.RawMessage) {
		v, err := decode[T](raw)
		if err != nil {
			p.invalid(key, raw, err.Error())
			return
		}
		*at(c) = v
	}
}

func number[C any, T int | uint16](least, most int, at func(C) *T) setter[C] {
	return func(p *problems, c C, key string, raw json.RawMessage) {
		v, err := decode[int](raw)
		if err != nil || v < least || v > most {
			p.invalid(key, raw, fmt.Sprintf("want a whole number from %d to %d", least, most))
			return
		}
		*at(c) = T(v)
	}
}

func choice[C any, T ~string](values []string, at func(C) *T) setter[C] {
	return func(p *problems, c C, key string, raw json.RawMessage) {
		v, err := decode[string](raw)
		want := "want " + strings.Join(values[:len(values)-1], ", ") + " or " + values[len(values)-1]
		switch {
		case err != nil:
			p.invalid(key, raw, want)
		case !slices.Contains(values, v):
			p.unsupported(key, v, want)
		default:
			*at(c) = T(v)
		}
	}
}

func linkName[C any](most int, at func(C) *string) setter[C] {
	return func(p *problems, c C, key string, raw json.RawMessage) {
		v, err := decode[string](raw)
		switch {
		case err != nil:
			p.invalid(key, raw, err.Error())
		case len(v) > most:
			p.invalid(key, quote(v), fmt.Sprintf("%d characters, at most %d fit", len(v), most))
		case slices.Contains(reservedLinkNames, v):
			p.invalid(key, quote(v), "the kernel has no links of this name")
		case !isLinkName(v):
			p.invalid(key, quote(v), "want a link name of letters, digits, '_', '.', '+', '-', the first not '-'")
		default:
			*at(c) = v
		}
	}
}

func setMTU(p *problems, c *Network, key string, raw json.RawMessage) {
	v, err := decode[int](raw)
	// 1280 is the least MTU of IPv6 (RFC 8200, section 5), 576 what every
	// IPv4 host takes (RFC 791); which applies shows with the subnets.
	if err != nil || v < 0 || (v > 0 && v < 576) || v > 65535 {
		p.invalid(key, raw, "want 0 (automatic) or a whole number from 576 to 65535")
		return
	}
	c.MTU = v
}

func setNodes(p *problems, c *Base, key string, raw json.RawMessage) {
	if IsFan(raw) {
		c.Fan = p.fan(key, raw)
		return
	}
	c.Nodes = p.nodes(key, raw)
	if len(c.Nodes) == 0 && p.noneOf(key) {
		p.invalid(key, raw, "empty: list every host of the network")
	}
}

func setNodesFile(p *problems, c *Base, key string, raw json.RawMessage) {
	v, err := decode[string](raw)
	if err != nil || !filepath.IsAbs(v) || !isPrintable(v) {
		p.invalid(key, raw, "want an absolute path")
		return
	}
	c.NodesFile = filepath.Clean(v)
}

func setNoMasquerade(p *problems, c *Network, key string, raw json.RawMessage) {
	list, err := decode[[]string](raw)
	if err != nil {
		p.invalid(key, raw, err.Error())
		return
	}
	for i, s := range list {
		if sub, ok := p.prefix(fmt.Sprintf("%s[%d]", key, i), s); ok {
			c.NoMasqueradeCIDRs = append(c.NoMasqueradeCIDRs, sub)
		}
	}
	slices.SortFunc(c.NoMasqueradeCIDRs, comparePrefix)
}

func setOVSDB(p *problems, c *Network, key string, raw json.RawMessage) {
	v, err := decode[string](raw)
	path := strings.TrimPrefix(v, "unix:")
	// unix(7): sun_path has 108 bytes, the last of which is zero.
	if err != nil || !filepath.IsAbs(path) || !isPrintable(path) || len(path) > 107 {
		p.invalid(key, raw, "want unix: and the absolute path of OVSDB's socket, at most 107 bytes")
		return
	}
	c.OVSDB = path
}

func setSpoofChk(p *problems, c *Network, key string, raw json.RawMessage) {
	v, err := decode[bool](raw)
	if err != nil {
		p.invalid(key, raw, err.Error())
		return
	}
	c.SpoofChk, c.SpoofChkSet = v, true
}

func setTimeout(p *problems, c *Network, key string, raw json.RawMessage) {
	v, err := decode[int](raw)
	if err != nil || v < 1 || v > 600 {
		p.invalid(key, raw, "want a whole number from 1 to 600")
		return
	}
	c.Timeout = time.Duration(v) * time.Second
}

func setIPAM(p *problems, c *Network, key string, raw json.RawMessage) {
	fields, err := decode[map[string]json.RawMessage](raw)
	if err != nil {
		p.invalid(key, raw, err.Error())
		return
	}
	c.IPAM.Type, c.IPAM.DataDir = stringOf(fields["type"]), stringOf(fields["dataDir"])
	if len(fields) > 0 && (c.IPAM.Type == "" || strings.ContainsRune(c.IPAM.Type, '/')) {
		p.invalid(key+".type", fields["type"], "want the name of an IPAM plugin, such as host-local")
	}
	c.IPAM.Ranged = fields["ranges"] != nil || fields["subnet"] != nil
}

func setDNS(p *problems, c *Network, key string, raw json.RawMessage) {
	if string(raw) == "null" {
		return
	}
	fields, err := decode[map[string]json.RawMessage](raw)
	if err != nil {
		p.invalid(key, raw, err.Error())
		return
	}
	lists := map[string]*[]string{"nameservers": &c.DNS.Nameservers, "search": &c.DNS.Search, "options": &c.DNS.Options}
	for _, name := range sortedKeys(fields) {
		var err error
		switch {
		case name == "domain":
			c.DNS.Domain, err = decode[string](fields[name])
		case lists[name] != nil:
			*lists[name], err = decode[[]string](fields[name])
		default:
			p.unknown(key+".", name, []string{"nameservers", "domain", "search", "options"})
		}
		if err != nil {
			p.invalid(key+"."+name, fields[name], err.Error())
		}
	}
}

func setTable(p *problems, c *Routes, key string, raw json.RawMessage) {
	if n, ok := map[string]int{"main": 254, "default": 253, "local": 255}[stringOf(raw)]; ok {
		c.Table = n
		return
	}
	v, err := decode[int](raw)
	if err != nil || v < 1 || v > 1<<31-1 {
		p.invalid(key, raw, "want main, default, local or a whole number from 1 to 2147483647")
		return
	}
	c.Table = v
}

func quoteInt(n int) []byte { return []byte(strconv.Itoa(n)) }
