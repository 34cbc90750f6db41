package agent

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/page"
	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestPage: each host's page shows the whole mesh, by the rows of all agents.
// One agent has no CAP_NET_RAW and must do with the sysctl, one may not ask at all.
func TestPage(t *testing.T) {
	l := lab(t, 3, 3)
	l.Hosts[1].Shell(t, `sysctl -qw net.ipv4.ping_group_range="0 2147483647"`)
	l.Hosts[2].Shell(t, `sysctl -qw net.ipv4.ping_group_range="1 0"`)
	args := []string{"run", "--template", template, "--nodes-file", nodesFile, "--resync", "1h"}
	noRaw := append([]string{"--bounding-set=-net_raw", program}, args...)
	agents := []*agent{command(t, l.Hosts[0], args...), run(t, l.Hosts[1], "setpriv", noRaw...), run(t, l.Hosts[2], "setpriv", noRaw...)}
	for _, a := range agents {
		a.ready(t)
	}
	cnitest.Add(t, l.Hosts[0], network, "stays")
	a := agents[0]
	shows(t, a, "3 hosts, 3 edges", "median round trip", "cnitool-", "host1 this host", "10-ovs-gre.conflist")
	testnet.Eventually(t, longest, func() error {
		if !strings.Contains(agents[2].said(), "net.ipv4.ping_group_range") {
			return fmt.Errorf("host3 does not say why it measures nothing")
		}
		return nil
	})
	var r page.Row
	if text, code := a.get("/row"); code != http.StatusOK || json.Unmarshal([]byte(text), &r) != nil || r.Host != "host1" || len(r.Edges) != 2 {
		t.Errorf("row: %d %s", code, text)
	}
	tells(t, a, map[string]float64{"peers_unreachable": 0, "upcalls_lost_total": 0, "tunnel_dropped_packets_total": 0})
	for _, name := range []string{`probes_total{result="answered"}`, "probe_round_trip_seconds_count", "upcalls_missed_total"} {
		if v := a.metric(t, "ovs_gre_agent_"+name); v == 0 {
			t.Errorf("%s is 0", name)
		}
	}

	// The square, by the agents: the third one measures nothing. Strangers are told none of it.
	testnet.Eventually(t, longest, func() error {
		text, _ := l.Hosts[0].Output(context.Background(), "/opt/cni/bin/ovs-grectl", "ping", "--all", "-o", "json", conflist)
		var rows []struct {
			Agents []struct {
				Node, Error string
				Peers       []struct {
					Peer       string
					Sent, Lost int
				}
			}
		}
		if err := json.Unmarshal([]byte(text), &rows); err != nil || len(rows) != 1 || len(rows[0].Agents) != 2 {
			return fmt.Errorf("ping --all: %v %s", err, text)
		}
		for i, asked := range []bool{true, false} {
			a := rows[0].Agents[i]
			if a.Error != "" || len(a.Peers) != 2 || (a.Peers[0].Sent > 0) != asked || a.Peers[0].Lost > 0 {
				return fmt.Errorf("ping --all: %+v", a)
			}
		}
		return nil
	})
	if text, err := l.Underlay.Output(context.Background(), "bash", "-c",
		`exec 3<>/dev/tcp/172.16.32.100/9178; printf 'GET /row HTTP/1.0\r\n\r\n' >&3; cat <&3`); err != nil || !strings.Contains(text, " 403 ") {
		t.Errorf("a stranger is told: %v %s", err, text)
	}
	agents[1].end()
	if text, _ := l.Hosts[0].Output(context.Background(), "/opt/cni/bin/ovs-grectl", "ping", "-a", conflist); !strings.Contains(text, "host2: no agent listens on port 9178") {
		t.Errorf("ping --all without host2's agent: %s", text)
	}
	agents[1] = run(t, l.Hosts[1], "setpriv", noRaw...)
	agents[1].ready(t)

	// What a flow of the tunnels' bridge drops, is counted, and lost on the page.
	l.Hosts[0].Shell(t, `ovs-ofctl add-flow obr0-t priority=7,ip,nw_src=192.168.2.0/24,actions=drop`)
	shows(t, a, "host1 – host2: unreachable", "something is wrong")
	testnet.Eventually(t, longest, func() error {
		for _, name := range []string{"peers_unreachable", "tunnel_dropped_packets_total", `probes_total{result="lost"}`} {
			if v := a.metric(t, "ovs_gre_agent_"+name); v < 1 {
				return fmt.Errorf("%s is %v", name, v)
			}
		}
		return nil
	})
	if text, code := a.fetch(9179, "evil.example", "/"); code != http.StatusForbidden {
		t.Errorf("the page is served under another's name: %d %.100s", code, text)
	}
	text, code := a.fetch(9179, "127.0.0.1", "/mesh.svg")
	if code != http.StatusOK || !strings.Contains(text, "<svg") {
		t.Fatalf("picture: %d %.200s", code, text)
	}
	wellFormed(t, text)
	picture := l.Hosts[0].Run(t, "/opt/cni/bin/ovs-grectl", "picture", conflist)
	wellFormed(t, picture)
	if !strings.Contains(picture, "1 unreachable") {
		t.Errorf("ovs-grectl picture: %.1500s", picture)
	}
}

// shows waits until the agent's page holds all of these texts.
func shows(t testing.TB, a *agent, want ...string) {
	t.Helper()
	testnet.Eventually(t, longest, func() error {
		text, code := a.fetch(9179, "localhost:9179", "/")
		if code != http.StatusOK {
			return fmt.Errorf("the page: %d %s", code, text)
		}
		text = plain(text)
		for _, w := range want {
			if !strings.Contains(text, w) {
				return fmt.Errorf("no %q on the page:\n%s", w, text)
			}
		}
		return nil
	})
}

// plain is a page without its tags and its style sheets.
func plain(text string) string {
	text = regexp.MustCompile(`(?s)<style>.*?</style>`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`<[^>]*>`).ReplaceAllString(text, " ")
	return strings.Join(strings.Fields(html.UnescapeString(text)), " ")
}

// wellFormed reads XML to its end.
func wellFormed(t testing.TB, text string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("picture: %v", err)
		}
	}
}
