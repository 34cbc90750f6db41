package runtimes

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// block is a shell block of a page behind a mark.
func block(t *testing.T, root, file, mark string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)<!-- " + regexp.QuoteMeta(mark) + " -->\n```sh\n(.*?)```\n").FindSubmatch(raw)
	if m == nil {
		t.Fatalf("%s has no block behind %q", file, mark)
	}
	return string(m[1])
}

// TestRealHosts types the README's "On real hosts" word for word on two bare hosts,
// and the loop over ssh of docs/install.md on two more. See TestQuickStart for what
// is the lab's.
func TestRealHosts(t *testing.T) {
	row := begin(t, "on real hosts")
	need(t, "apt-get")
	root, err := cnitest.Root()
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{root: root}
	once, each := block(t, root, "README.md", "on real hosts: once"), block(t, root, "README.md", "on real hosts: each")
	ssh := block(t, root, "docs/install.md", "ssh")
	row.version = "README, docs/install.md"
	row.check(t, "build", func(t *testing.T) { r.here(t, once) })
	row.check(t, "apt-get", func(t *testing.T) { r.here(t, lines(t, each, "apt-get")) })
	// Only now come the other tests: apt-get may have changed what they run.
	t.Parallel()
	for name, install := range map[string]func(*testing.T, *reader){
		"by hand": func(t *testing.T, r *reader) {
			for _, h := range r.Hosts {
				r.on(t, h, each)
			}
		},
		"over ssh": func(t *testing.T, r *reader) { r.overSSH(t, ssh) },
	} {
		row.check(t, name, func(t *testing.T) {
			r := &reader{root: root, Lab: labWith(t, testnet.Options{OwnDirs: []string{"/usr/local/bin"}})}
			r.copyConflist(t, "gre.conflist")
			install(t, r)
			r.works(t)
		})
	}
}

// overSSH types a loop over ssh on this machine, with an ssh that gets to hosts of
// the lab without a network, a server and a key.
func (r *reader) overSSH(t *testing.T, script string) {
	t.Helper()
	fake := "#!/bin/sh\nset -eu\ncase ${1#root@} in\n"
	for _, h := range r.Hosts {
		cmd := h.Command(t.Context(), "sh", "-ec")
		fake += h.Addr4.String() + ") shift; exec " + strings.Join(cmd.Args, " ") + ` "$*" ;;` + "\n"
	}
	fake += "*) echo \"ssh: no host $1\" >&2; exit 255 ;;\nesac\n"
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	at := *r
	at.root = r.copy
	at.here(t, "PATH="+dir+":$PATH\n"+script)
}

// works attaches a container to each host and has each ask the other.
func (r *reader) works(t *testing.T) {
	t.Helper()
	cnitool, err := os.ReadFile(filepath.Join(cnitest.BinDir(t), "cnitool"))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range r.Hosts {
		if err := os.WriteFile(filepath.Join(h.Dir, "opt/cni/bin/cnitool"), cnitool, 0o755); err != nil {
			t.Fatal(err)
		}
		if out := r.on(t, h, "ovs-grectl status"); !strings.Contains(out, "as it should be") {
			t.Errorf("%s: status: %s", h.Name, out)
		}
		r.on(t, h, block(t, r.root, "README.md", "on real hosts: then"))
		if mode := r.on(t, h, "stat -c %a /etc/cni/net.d/10-ovsnet.conflist"); mode != "644" {
			t.Errorf("%s: the conflist has mode %s", h.Name, mode)
		}
	}
	cs := cnitest.AddAll(t, r.Lab, "ovsnet")
	cnitest.AllReach(t, cs)
	for _, c := range cs {
		if err := c.Call("del"); err != nil {
			t.Error(err)
		}
	}
}
