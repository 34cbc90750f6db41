package doctor

import (
	"bufio"
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// networkd checks that systemd-networkd does not remove other programs' routes when it
// restarts, which is its default (networkd.conf(5)).
func networkd(_ context.Context, h *host) []Finding {
	if !processes()["systemd-network"] {
		return []Finding{ok("", "systemd-networkd does not run")}
	}
	set := networkdConf("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
	var bad []string
	for _, key := range []string{"ManageForeignRoutes", "ManageForeignRoutingPolicyRules"} {
		if !slices.Contains([]string{"no", "false", "off", "0", "n", "f"}, strings.ToLower(set[key])) {
			bad = append(bad, key)
		}
	}
	if len(bad) == 0 {
		return []Finding{ok("", "systemd-networkd leaves foreign routes alone")}
	}
	return []Finding{fail("", `mkdir -p /etc/systemd/networkd.conf.d && `+
		`printf '[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n' >/etc/systemd/networkd.conf.d/50-ovs-gre.conf && `+
		`systemctl restart systemd-networkd`,
		"systemd-networkd runs and may remove our routes when it restarts: %s is not off", strings.Join(bad, ", "))}
}

// networkdConf returns the keys of the section [Network] of networkd.conf and its drop-ins
// in these directories; an earlier directory has precedence.
func networkdConf(dirs ...string) map[string]string {
	var files []string
	for _, d := range dirs {
		if main := filepath.Join(d, "networkd.conf"); exists(main) {
			files = append(files, main)
			break
		}
	}
	dropins := map[string]string{} // by name: the directory with the highest precedence counts
	for _, d := range slices.Backward(dirs) {
		matches, _ := filepath.Glob(filepath.Join(d, "networkd.conf.d", "*.conf"))
		for _, m := range matches {
			dropins[filepath.Base(m)] = m
		}
	}
	for _, name := range slices.Sorted(maps.Keys(dropins)) {
		files = append(files, dropins[name])
	}
	set := map[string]string{}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		section := ""
		for s := bufio.NewScanner(bytes.NewReader(raw)); s.Scan(); {
			line := strings.TrimSpace(s.Text())
			if strings.HasPrefix(line, "[") {
				section = line
			} else if k, v, ok := strings.Cut(line, "="); ok && section == "[Network]" {
				set[strings.TrimSpace(k)] = strings.TrimSpace(v)
			}
		}
	}
	return set
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// firewalld reports links of the networks that firewalld filters.
func firewalld(ctx context.Context, h *host) []Finding {
	if !processes()["firewalld"] {
		return []Finding{ok("", "firewalld does not run")}
	}
	var list []Finding
	for _, n := range h.nets {
		links := slices.DeleteFunc([]string{n.gateway, n.transit()}, func(l string) bool { return l == "" || zone(ctx, l) == "trusted" })
		if len(links) == 0 {
			list = append(list, ok(n.Name(), "firewalld runs and trusts the network's links"))
			continue
		}
		list = append(list, warn(n.Name(), "firewall-cmd --permanent --zone=trusted --add-interface="+
			strings.Join(links, " --add-interface=")+tunnelService(n)+" && firewall-cmd --reload",
			"firewalld runs and may drop what %s forward: they are not in zone trusted", strings.Join(links, ", ")))
	}
	return list
}

func zone(ctx context.Context, link string) string {
	out, err := exec.CommandContext(ctx, "firewall-cmd", "--get-zone-of-interface="+link).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// tunnelService opens the host for the tunnels' packets.
func tunnelService(n *networkInfo) string {
	if !n.tunnels() || n.netdev {
		return ""
	}
	proto, port := n.protocol()
	if proto == protoUDP {
		return " && firewall-cmd --permanent --add-port=" + itoa(int(port)) + "/udp"
	}
	return " && firewall-cmd --permanent --add-protocol=gre"
}
