// Package packages installs and removes the .deb and the .rpm that "make packages"
// built, in a mount namespace whose writes go nowhere.
package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// copyOfMachine makes $d/root, a copy of this machine whose changes are in memory alone.
const copyOfMachine = `mount --make-rprivate /
d=$(mktemp -d)
mount -t tmpfs t "$d"
mkdir "$d/up" "$d/work" "$d/root"
mount -t overlay o -o lowerdir=/,upperdir="$d/up",workdir="$d/work" "$d/root"
mount --rbind /proc "$d/root/proc"; mount --rbind /dev "$d/root/dev"; mount -t tmpfs t "$d/root/run"
`

// bare is a root file system of the test's own: an overlay stands over this
// machine's, so that its database of packages and its files stay as they are. The
// arguments are copied into /root, systemctl is a program that says what it would do.
const bare = `
set -eu
ip link set lo up
` + copyOfMachine + `rm -rf "$d/root/etc/cni" "$d/root/opt/cni"
mkdir -p "$d/root/root/made"
cp "$@" "$d/root/root/made"
cat >"$d/root/usr/local/bin/systemctl" <<'END'
#!/bin/sh
# start UNIT: as far as a machine without systemd can tell
set -eu
[ "$1" = start ]
unit=/lib/systemd/system/$2.service
for f in $(sed -n 's/^Condition[A-Za-z]*=//p' "$unit"); do [ -e "$f" ] || { echo "systemctl: $f is not there"; exit 1; }; done
set -- $(sed -n 's/^ExecStart=//p' "$unit")
for word; do case $word in /*) ;; --*=/*) word=${word#*=} ;; *) continue ;; esac; [ -e "$word" ] || { echo "systemctl: $word is not there"; exit 1; }; done
echo "systemctl would start $*"
END
chmod 755 "$d/root/usr/local/bin/systemctl"
inside() { chroot "$d/root" "$@"; }
`

// files are in both kinds of packages.
var files = []string{
	"/opt/cni/bin/ovs-gre", "/opt/cni/bin/route-sync", "/usr/bin/ovs-grectl", "/usr/sbin/ovs-gre-agent",
	"/lib/systemd/system/ovs-gre.service", "/lib/systemd/system/ovs-gre-agent.service",
	"/usr/lib/ovs-gre/flow-restore", "/lib/systemd/system/ovs-vswitchd.service.d/50-ovs-gre.conf", "/usr/share/doc/ovs-gre-agent/template.json",
	"/etc/iproute2/rt_protos.d/ovs-gre.conf", "/usr/share/man/man8/ovs-grectl.8", "/usr/share/man/man8/ovs-grectl-trace.8",
	"/usr/share/bash-completion/completions/ovs-grectl", "/usr/share/fish/vendor_completions.d/ovs-grectl.fish",
	"/usr/share/doc/ovs-gre/ovs-grectl.schema.json", "/usr/share/doc/ovs-gre/examples/gre.conflist",
}

// installed looks at what the packages have brought.
const installed = `
for f in $files; do inside test -s "$f" || echo "missing: $f"; done
echo "version: $(inside ovs-grectl version)"
inside bash -c '. /usr/share/bash-completion/completions/ovs-grectl && complete -p ovs-grectl' >/dev/null || echo "the completion does not load"
inside sh -c 'CNI_COMMAND=VERSION /opt/cni/bin/ovs-gre </dev/null' | grep -q '"1.1.0"' || echo "the plugin does not answer"
inside ip route add 192.0.2.0/24 dev lo proto ovs-gre && inside ip route show proto 121 | grep -q '^192.0.2.0/24' || echo "the protocol has no name"
inside ip route del 192.0.2.0/24 dev lo
inside ovs-gre-agent version | grep -qx "ovs-gre-agent $(inside ovs-grectl version | cut -d' ' -f2)" || echo "the agent is of another version"
`

// removed looks at what they have left.
const removed = `
for f in $files /usr/share/doc/ovs-gre /usr/share/doc/ovs-gre-agent; do ! inside test -e "$f" || echo "left: $f"; done
`

// run runs a script on a bare root file system and returns what it says.
func run(t *testing.T, script string, files []string, args ...string) string {
	t.Helper()
	script = bare + "files='" + strings.Join(files, " ") + "'\n" + script
	cmd := exec.Command("unshare", append([]string{"--mount", "--net", "sh", "-c", script, "sh"}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "missing:") || strings.HasPrefix(line, "left:") || strings.HasPrefix(line, "the ") {
			t.Error(line)
		}
	}
	if !strings.Contains(string(out), "version: ovs-grectl ") {
		t.Errorf("no version: %s", out)
	}
	return string(out)
}

func TestDeb(t *testing.T) {
	run(t, `inside sh -c 'dpkg -i /root/made/*.deb' >/dev/null`+installed+`
inside dpkg -P ovs-gre >/dev/null 2>&1 && echo "the agent does not need ovs-gre"
inside dpkg -P ovs-gre-agent ovs-gre >/dev/null 2>&1`+removed,
		append(files, "/usr/share/zsh/vendor-completions/_ovs-grectl"), made(t, "ovs-gre_*.deb"), made(t, "ovs-gre-agent_*.deb"))
}

// TestRPM: what the packages need has other names here, so nothing is said about
// it (--nodeps).
func TestRPM(t *testing.T) {
	run(t, `inside sh -c 'rpm -i --nodeps /root/made/*.rpm' 2>/dev/null`+installed+`
inside rpm -V --nodeps ovs-gre ovs-gre-agent | sed 's/^/the package differs from what it installs: /'
inside rpm -q --requires ovs-gre-agent | grep -qx ovs-gre || echo "the agent does not need ovs-gre"
inside rpm -e ovs-gre-agent ovs-gre 2>/dev/null`+removed,
		append(files, "/usr/share/zsh/site-functions/_ovs-grectl"), made(t, "ovs-gre-[0-9]*.rpm"), made(t, "ovs-gre-agent-[0-9]*.rpm"))
}

// TestInstall types the blocks of docs/install.md about packages, word for word but
// for the version. What the started units do, test/grectl and test/agent tell.
func TestInstall(t *testing.T) {
	deb := made(t, "ovs-gre_*.deb")
	version := strings.Split(filepath.Base(deb), "_")[1]
	docs, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(mark string) string {
		_, text, _ := strings.Cut(string(docs), "<!-- "+mark+" -->\n```sh\n")
		text, _, ok := strings.Cut(text, "```\n")
		if !ok {
			t.Fatalf("docs/install.md has no block %q", mark)
		}
		return strings.NewReplacer("VERSION", version, "amd64", runtime.GOARCH).Replace(text)
	}
	typed := func(block string) string {
		return "yes | inside sh -exc 'cd /root/made\n" + block + "' 2>&1\n" // who types says yes to apt-get
	}
	nodes := filepath.Join(t.TempDir(), "nodes.json")
	if err := os.WriteFile(nodes, []byte("[]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// down asks Open vSwitch, which is not here: it has tests of its own.
	remove := strings.ReplaceAll(block("remove"), "ovs-grectl down", "ovs-grectl help down")
	out := run(t, typed(block("package"))+"inside ovs-grectl validate /etc/cni/net.d/10-ovsnet.conflist\n"+
		typed(block("agent"))+installed+typed(remove)+"inside sh -c '! ls /etc/cni/net.d/10-ovsnet.conflist /usr/bin/ovs-grectl' 2>/dev/null\n",
		files, deb, made(t, "ovs-gre-agent_*.deb"), nodes)
	for _, would := range []string{"systemctl would start /usr/bin/ovs-grectl up\n", "systemctl would start /usr/sbin/ovs-gre-agent run "} {
		if !strings.Contains(out, would) {
			t.Errorf("want %q:\n%s", would, out)
		}
	}
}

// made is the one package of a name, of those that make packages has made.
func made(t *testing.T, pattern string) string {
	t.Helper()
	list, err := filepath.Glob("../../bin/packages/" + pattern)
	if err != nil || len(list) != 1 {
		t.Fatalf("want one %s in bin/packages, made by make packages: %v %v", pattern, list, err)
	}
	path, err := filepath.Abs(list[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}
