package grectl

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"ovs-gre-cni/test/cnitest"
)

// commandLine is a line of a block that somebody types, but for its comment.
var commandLine = regexp.MustCompile(`(?m)^([^#\n]*ovs-grectl [^#\n]*)`)

// typed are the lines with ovs-grectl of all sh blocks of a page.
func typed(text string) (list []string) {
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(text, -1) {
		for _, m := range commandLine.FindAllStringSubmatch(block[1], -1) {
			list = append(list, strings.TrimSpace(m[1]))
		}
	}
	return list
}

// TestDocs types every command of two pages, on a host with a container. What is not
// the host's is put in: the container's ID, a file, and what trace is asked for. Each
// ends well, or says that something is not: 1, of down, which is refused.
func TestDocs(t *testing.T) {
	l := lab(t, 2, cnitest.Network{})
	h := l.Hosts[0]
	a, b := cnitest.Add(t, h, "ovsnet", "a"), cnitest.Add(t, l.Hosts[1], "ovsnet", "b")
	// Of the command's own files, and of the network's.
	h.WriteFile(t, "/etc/cni/net.d/wg/conflist/gre.conflist", h.Run(t, "cat", conflist))
	keyed := strings.Replace(h.Run(t, "cat", conflist), `"type": "ovs-gre"`, `"type": "ovs-gre", "tunnel": {"type": "wireguard"}`, 1)
	keyed = strings.Replace(keyed, `"name": "ovsnet"`, `"name": "other"`, 1)
	h.WriteFile(t, "/etc/cni/net.d/wg/other.conflist", keyed)
	words := strings.NewReplacer("3f4e5a", a.ID()[:14], "192.168.1.2", a.Addr(t, false).String(), "192.168.2.2", b.Addr(t, false).String(),
		"CONTAINER DESTINATION [PROTO [PORT]]", a.Addr(t, false).String()+" "+b.Addr(t, false).String(), " FILE", " "+conflist)
	n := 0
	for _, file := range []string{"docs/ovs-grectl.md", "docs/troubleshooting.md", "docs/encryption.md"} {
		for _, line := range typed(page(t, file)) {
			n++
			t.Run(strings.ReplaceAll(line, "/", "-"), func(t *testing.T) {
				command := words.Replace(line)
				if strings.Contains(line, "ovs-grectl key") { // of a network that has keys
					command = strings.Split(command, " /etc")[0] + " /etc/cni/net.d/wg/other.conflist"
				}
				want(t, 0, h, "up") // what the one before has taken away
				out := h.Run(t, "bash", "-c",
					fmt.Sprintf("cd /etc/cni/net.d/wg; PATH=/opt/cni/bin:$PATH; set -o pipefail; { %s; } 2>&1; echo \"exit $?\"", command))
				fine := strings.HasSuffix(out, "exit 0\n") || strings.Contains(line, "doctor") && strings.HasSuffix(out, "exit 1\n") ||
					line == "ovs-grectl down" && strings.HasSuffix(out, "exit 1\n") && strings.Contains(out, "--force")
				if !fine {
					t.Errorf("%s: %s: %s", file, command, out)
				}
			})
		}
	}
	if n < 30 {
		t.Errorf("%d commands in the docs: look how they are found", n)
	}
	want(t, 0, h, "up")
	ping(t, a, b, false)
}
