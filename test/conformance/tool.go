package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// cnitool calls a verb through libcni.
func (t *try) cnitool(n network, verb string, b *box) (string, error) {
	ctx, cancel := context.WithTimeout(t.ctx, bound)
	defer cancel()
	cmd := t.host.Command(ctx, ownDir+"/tools/cnitool", verb, n.name, b.netns)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH=" + cniPath, "NETCONFPATH=" + ownDir + "/net.d", "CNI_IFNAME=" + b.ifname}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		text, _, _ := strings.Cut(stderr.String(), "Usage:")
		return stdout.String(), fmt.Errorf("cnitool %s: %w: %s%s", verb, err, short(stdout.String()), short(text))
	}
	return stdout.String(), nil
}

// installed writes the network where cnitool looks.
func (t *try) installed(n network) error {
	dir := t.own("net.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, n.name+".conflist"), []byte(n.conflist()), 0o644)
}

// byTool attaches a box by cnitool, which makes up a container id of its own.
func (t *try) byTool(n network) (*box, error) {
	b, err := t.box()
	if err == nil {
		err = t.installed(n)
	}
	if err != nil {
		return nil, err
	}
	t.defers(func() error { _, err := t.cnitool(n, "del", b); return err })
	b.prev, err = t.cnitool(n, "add", b)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(b.prev), &b.result); err != nil {
		return nil, err
	}
	return b, b.attached()
}

var toolClauses = []Clause{
	{ID: "TOOL-1", Kind: Library, Says: "libcni: add, and del leaves the host as before", try: func(t *try) error {
		b, err := t.byTool(t.net)
		if err != nil {
			return err
		}
		if err := t.fits(b); err != nil {
			return err
		}
		if _, err := t.cnitool(t.net, "del", b); err != nil {
			return err
		}
		return t.unchanged(func() error {
			if _, err := t.cnitool(t.net, "add", b); err != nil {
				return err
			}
			_, err := t.cnitool(t.net, "del", b)
			return err
		}, b)
	}},
	{ID: "TOOL-2", Kind: Library, Says: "libcni: check after add is content, and after the interface is gone it is not", since: "0.4.0", try: func(t *try) error {
		b, err := t.byTool(t.net)
		if err != nil {
			return err
		}
		if _, err := t.cnitool(t.net, "check", b); err != nil {
			return err
		}
		if _, err := t.inside(b, "ip link delete eth0"); err != nil {
			return err
		}
		if _, err := t.cnitool(t.net, "check", b); err == nil {
			return errors.New("cnitool check found nothing amiss")
		}
		return nil
	}},
	{ID: "TOOL-3", Kind: Library, Says: "libcni: status", since: "1.1.0", try: func(t *try) error {
		if err := t.installed(t.net); err != nil {
			return err
		}
		_, err := t.cnitool(t.net, "status", nobody())
		return err
	}},
	{ID: "TOOL-4", Kind: Library, Says: "libcni: gc takes what libcni remembers", since: "1.1.0", try: func(t *try) error {
		b, err := t.byTool(t.net)
		if err != nil {
			return err
		}
		if _, err := t.cnitool(t.net, "gc", b); err != nil {
			return err
		}
		links, err := t.links(b)
		if err != nil {
			return err
		}
		if _, there := links[b.ifname]; there {
			return fmt.Errorf("%s is still there", b.ifname)
		}
		if hostLocal(t.net) {
			held, err := t.holds(t.net)
			if err != nil || len(held) > 0 {
				return errors.Join(err, fmt.Errorf("host-local holds %v", held))
			}
		}
		return nil
	}},
	{ID: "TOOL-5", Kind: Promise, Says: "libcni: gc leaves what libcni does not remember, for it names no attachment", since: "1.1.0", try: func(t *try) error {
		if err := t.installed(t.net); err != nil {
			return err
		}
		b, err := t.one(t.net)
		if err != nil {
			return err
		}
		if _, err := t.cnitool(t.net, "gc", b); err != nil {
			return err
		}
		return t.kept(b)
	}},
	{ID: "TOOL-6", Kind: Library, Says: "libcni: add, check and del with tuning, portmap and bandwidth behind", since: "0.4.0", about: hasIPAM, try: func(t *try) error {
		n := t.net.with(conf{"type": "tuning", "promisc": true}, conf{"type": "portmap", "capabilities": conf{"portMappings": true}},
			conf{"type": "bandwidth", "ingressRate": 1 << 20, "ingressBurst": 1 << 20, "egressRate": 1 << 20, "egressBurst": 1 << 20})
		b, err := t.byTool(n)
		if err != nil {
			return err
		}
		_, err = t.cnitool(n, "check", b)
		return err
	}},
}
