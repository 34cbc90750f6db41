// Package packages installs and removes the .deb that "make packages" built,
// in a mount namespace whose writes go nowhere.
package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// script runs in a private mount namespace: an overlay stands over the root
// file system, so that dpkg's database and files are this test's own.
const script = `
set -eu
mount --make-rprivate /
d=$(mktemp -d)
mount -t tmpfs t "$d"
mkdir "$d/up" "$d/work" "$d/root"
mount -t overlay o -o lowerdir=/,upperdir="$d/up",workdir="$d/work" "$d/root"
mount --rbind /proc "$d/root/proc"; mount --rbind /dev "$d/root/dev"
cp "$1" "$d/root/pkg.deb"
cp "$2" "$d/root/agent.deb"
inside() { chroot "$d/root" "$@"; }
inside dpkg -i /pkg.deb /agent.deb >/dev/null
for f in /opt/cni/bin/ovs-gre /opt/cni/bin/route-sync /usr/bin/ovs-grectl /usr/sbin/ovs-gre-agent; do
	inside test -x "$f" || echo "missing: $f"
done
for f in /lib/systemd/system/ovs-gre.service /lib/systemd/system/ovs-gre-agent.service /usr/share/doc/ovs-gre-agent/template.json /etc/iproute2/rt_protos.d/ovs-gre.conf /usr/share/man/man8/ovs-grectl.8 /usr/share/man/man8/ovs-grectl-trace.8 \
	/usr/share/bash-completion/completions/ovs-grectl /usr/share/zsh/vendor-completions/_ovs-grectl /usr/share/fish/vendor_completions.d/ovs-grectl.fish \
	/usr/share/doc/ovs-gre/ovs-grectl.schema.json /usr/share/doc/ovs-gre/examples/gre.conflist; do
	inside test -s "$f" || echo "missing: $f"
done
echo "version: $(inside ovs-grectl version)"
inside bash -c '. /usr/share/bash-completion/completions/ovs-grectl && complete -p ovs-grectl' >/dev/null || echo "the completion does not load"
inside sh -c 'CNI_COMMAND=VERSION /opt/cni/bin/ovs-gre </dev/null' | grep -q '"1.1.0"' || echo "the plugin does not answer"
inside ip route add 192.0.2.0/24 dev lo proto ovs-gre && inside ip route show proto 121 | grep -q '^192.0.2.0/24' || echo "the protocol has no name"
inside ip route del 192.0.2.0/24 dev lo
inside ovs-gre-agent version | grep -qx "ovs-gre-agent $(inside ovs-grectl version | cut -d' ' -f2)" || echo "the agent is of another version"
inside dpkg -P ovs-gre >/dev/null 2>&1 && echo "the agent does not need ovs-gre"
inside dpkg -P ovs-gre-agent ovs-gre >/dev/null 2>&1
for f in /opt/cni/bin/ovs-gre /usr/sbin/ovs-gre-agent /lib/systemd/system/ovs-gre-agent.service /usr/bin/ovs-grectl /etc/iproute2/rt_protos.d/ovs-gre.conf /usr/share/doc/ovs-gre; do
	! inside test -e "$f" || echo "left: $f"
done
`

func TestDeb(t *testing.T) {
	pkg, agent := made(t, "ovs-gre_*.deb"), made(t, "ovs-gre-agent_*.deb")
	made(t, "ovs-gre-[0-9]*.rpm")
	made(t, "ovs-gre-agent-[0-9]*.rpm")
	cmd := exec.Command("unshare", "--mount", "--net", "sh", "-c", "ip link set lo up\n"+script, "sh", pkg, agent)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "missing:") || strings.HasPrefix(line, "left:") || strings.HasPrefix(line, "the ") {
			t.Error(line)
		}
	}
	if !strings.Contains(string(out), "version: ") {
		t.Errorf("no version: %s", out)
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
