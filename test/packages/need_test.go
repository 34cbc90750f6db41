package packages

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// needed installs, by test/need, a package that enables and starts a service as
// Debian's do (dh_installsystemd), from a repository of this directory.
const needed = `
set -eu
` + copyOfMachine + `cp "$1" "$d/root/need"
chroot "$d/root" bash -eu <<'END'
mkdir -p /repo/p/DEBIAN /repo/p/lib/systemd/system /repo/p/etc/init.d
printf 'Package: ovs-gre-needed\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a service\n' >/repo/p/DEBIAN/control
printf '[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\nAlias=needed-alias.service\n' >/repo/p/lib/systemd/system/ovs-gre-needed.service
printf '#!/bin/sh\n### BEGIN INIT INFO\n# Provides: ovs-gre-needed\n# Required-Start:\n# Required-Stop:\n# Default-Start: 2 3 4 5\n# Default-Stop:\n### END INIT INFO\ntouch /started\n' >/repo/p/etc/init.d/ovs-gre-needed
chmod 755 /repo/p/etc/init.d/ovs-gre-needed
cat >/repo/p/DEBIAN/postinst <<'POST'
#!/bin/sh
set -e
deb-systemd-helper enable ovs-gre-needed.service
update-rc.d ovs-gre-needed defaults
invoke-rc.d --quiet --query ovs-gre-needed start || echo $? >/query # 101: denied by policy-rc.d; 104, 105: allowed
invoke-rc.d ovs-gre-needed start
deb-systemd-helper was-enabled ovs-gre-needed.service && touch /enabled-meanwhile
POST
chmod 755 /repo/p/DEBIAN/postinst
dpkg-deb -Zgzip -b /repo/p /repo/needed.deb >/dev/null
cd /repo
{ dpkg-deb -f needed.deb; echo "Filename: ./needed.deb"; echo "Size: $(stat -c %s needed.deb)"; echo "SHA256: $(sha256sum needed.deb | cut -d' ' -f1)"; } >Packages
echo 'deb [trusted=yes] file:/repo ./' >/etc/apt/sources.list
rm -f /etc/apt/sources.list.d/* /usr/sbin/policy-rc.d
find /etc/systemd/system /etc/rc?.d -type l | sort >/before
/need ovs-gre-needed >/log 2>&1 || { cat /log; exit 1; }
[ "$(dpkg-query -W -f '${db:Status-Status}' ovs-gre-needed)" = installed ] || { echo "wrong: not installed"; cat /log; }
[ -e /enabled-meanwhile ] || echo "wrong: the package enables nothing: nothing is tried by this"
[ ! -e /started ] || echo "wrong: the service was started"
[ "$(cat /query)" = 101 ] || echo "wrong: a service may be started: $(cat /query)"
find /etc/systemd/system /etc/rc?.d -type l | sort | diff /before - | sed 's/^/wrong: /'
[ ! -e /usr/sbin/policy-rc.d ] || echo "wrong: policy-rc.d is left"
# One that is there is not ours.
echo "# mine" >/usr/sbin/policy-rc.d
dpkg -P ovs-gre-needed >/dev/null 2>&1
/need ovs-gre-needed >/log 2>&1 || true
[ "$(cat /usr/sbin/policy-rc.d)" = "# mine" ] || echo "wrong: policy-rc.d of the machine is gone"
echo done
END
`

// TestNeed: test/need leaves no service running or enabled behind.
func TestNeed(t *testing.T) {
	need, err := filepath.Abs("../need")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c", needed, "sh", need).CombinedOutput()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "done") || strings.Contains(string(out), "wrong: ") {
		t.Errorf("%v\n%s", err, out)
	}
}
