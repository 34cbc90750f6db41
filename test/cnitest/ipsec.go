package cnitest

import (
	"context"
	"fmt"
	"os/exec"

	"ovs-gre-cni/pkg/testnet"
)

// PSKFile is the file of a lab's host that has its pre-shared key.
const PSKFile = "/var/lib/ovs-gre/psk"

// UnpackIPsec unpacks Debian's packages of OVS's IPsec daemon and of strongSwan, those
// in a directory, into this machine: a VM whose files are forgotten.
func UnpackIPsec(ctx context.Context, dir string) error {
	const script = `for deb in "$1"/*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -x -C / --keep-directory-symlink; done`
	if out, err := exec.CommandContext(ctx, "bash", "-ec", script, "bash", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("unpack %s: %w: %s", dir, err, out)
	}
	return nil
}

// PrepareIPsec gives a host strongSwan's files of its own, and a pre-shared key.
func PrepareIPsec(ctx context.Context, h *testnet.Host, psk string) error {
	_, err := h.Output(ctx, "bash", "-ec", `d=$(mktemp -d -p /run)
cp -a /etc/strongswan.d "$d/"
: >"$d/ipsec.conf"
: >"$d/ipsec.secrets"
for f in strongswan.d ipsec.conf ipsec.secrets; do mount --bind "$d/$f" "/etc/$f"; done
umask 077
echo "$1" >"$2"`, "bash", psk, PSKFile)
	return err
}

// StartIPsec starts OVS's IPsec daemon, which starts strongSwan.
func StartIPsec(ctx context.Context, h *testnet.Host) error {
	_, err := h.Output(ctx, "bash", "-ec", "/usr/share/openvswitch/scripts/ovs-monitor-ipsec --pidfile --log-file --detach "+
		"--ike-daemon=strongswan unix:/var/run/openvswitch/db.sock >/dev/null 2>&1")
	return err
}

// StopIPsec ends both.
func StopIPsec(ctx context.Context, h *testnet.Host) error {
	_, err := h.Output(ctx, "bash", "-c", "kill $(cat /var/run/openvswitch/ovs-monitor-ipsec.pid); ipsec stop >/dev/null 2>&1; ! pgrep -x charon")
	return err
}
