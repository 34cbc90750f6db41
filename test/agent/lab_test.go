// Package agent runs the built ovs-gre-agent on labs of simulated hosts with
// real OVS, its hosts a file's.
package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

const (
	program   = "/opt/cni/bin/ovs-gre-agent"
	conflist  = "/etc/cni/net.d/10-ovs-gre.conflist"
	template  = "/etc/cni/template.json"
	nodesFile = "/etc/cni/nodes/nodes.json"
	store     = "/var/lib/ovs-gre/nodes.json"
	// network is the template's.
	network = "pods"
	// longest bounds a wait for what is a matter of seconds on an idle machine.
	longest = 60 * time.Second
)

// lab starts hosts that have the binaries, the template, and the list of the
// first nodes of them.
func lab(t *testing.T, hosts, nodes int) *testnet.Lab {
	t.Helper()
	l := testnet.New(t, testnet.Options{Hosts: hosts, PluginDir: cnitest.BinDir(t)})
	for _, h := range l.Hosts {
		h.WriteFile(t, template, conf(t, l))
	}
	list(t, l, l.Hosts, all(l)[:nodes])
	return l
}

// conf is the template, the same on every host.
func conf(t testing.TB, l *testnet.Lab) string {
	t.Helper()
	main := cnitest.Conf{
		"type": "ovs-gre", "segment": "container", "ipMasq": true, "ipam": cnitest.Conf{"type": "host-local"},
		"capabilities": cnitest.Conf{"ips": true},
	}
	if l.Datapath == testnet.DatapathNetdev {
		main["datapathType"] = "netdev"
	}
	return encode(t, cnitest.Conf{"cniVersion": "1.1.0", "name": network, "plugins": []cnitest.Conf{main, {"type": "route-sync"}}})
}

func encode(t testing.TB, v any) string {
	t.Helper()
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// all are the nodes of all hosts.
func all(l *testnet.Lab) []cnitest.Conf {
	return cnitest.Network{}.NodeList(l)
}

// list writes the nodes file on hosts, as an operator should: in one step.
func list(t testing.TB, l *testnet.Lab, hosts []*testnet.Host, nodes []cnitest.Conf) {
	t.Helper()
	for _, h := range hosts {
		h.WriteFile(t, nodesFile+".new", encode(t, nodes))
		h.Shell(t, "mv "+nodesFile+".new "+nodesFile)
	}
}

// An agent is a running ovs-gre-agent.
type agent struct {
	host *testnet.Host
	cmd  *exec.Cmd
	done chan error
	kill context.CancelFunc

	mu  sync.Mutex
	log bytes.Buffer
}

// Write implements io.Writer: it takes the log.
func (a *agent) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.Write(p)
}

// said is the log so far.
func (a *agent) said() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.log.String()
}

// start starts the agent of a host. Its resync is an hour: what comes sooner
// has been seen.
func start(t *testing.T, h *testnet.Host, args ...string) *agent {
	t.Helper()
	return command(t, h, append([]string{"run", "--template", template, "--nodes-file", nodesFile, "--listen", "127.0.0.1:9178", "--resync", "1h"}, args...)...)
}

// command starts a command of the agent's that stays.
func command(t *testing.T, h *testnet.Host, args ...string) *agent {
	t.Helper()
	return run(t, h, program, args...)
}

// run starts a program that becomes the agent.
func run(t *testing.T, h *testnet.Host, name string, args ...string) *agent {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a := &agent{host: h, done: make(chan error, 1), kill: cancel}
	a.cmd = h.Command(ctx, name, args...)
	a.cmd.Stdout, a.cmd.Stderr = a, a
	if err := a.cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	go func() { a.done <- a.cmd.Wait() }()
	t.Cleanup(func() {
		a.end()
		if t.Failed() {
			t.Logf("%s: the agent's log:\n%s", h.Name, a.said())
		}
	})
	return a
}

// startAll starts an agent on each host and waits until all are ready.
func startAll(t *testing.T, l *testnet.Lab) []*agent {
	t.Helper()
	var agents []*agent
	for _, h := range l.Hosts {
		agents = append(agents, start(t, h))
	}
	for _, a := range agents {
		a.ready(t)
	}
	return agents
}

// end kills the agent without warning.
func (a *agent) end() {
	a.kill()
	a.done <- <-a.done
}

// stop asks the agent to end, as Kubernetes does.
func (a *agent) stop(t testing.TB) {
	t.Helper()
	if err := testnet.Signal(a.cmd, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := a.wait(t); err != nil {
		t.Fatalf("%s: the agent ended with %v", a.host.Name, err)
	}
}

// wait waits until the agent has ended of itself.
func (a *agent) wait(t testing.TB) error {
	t.Helper()
	select {
	case err := <-a.done:
		a.done <- err
		return err
	case <-time.After(longest):
		t.Fatalf("%s: the agent does not end", a.host.Name)
		return nil
	}
}

// ready waits until the agent says that it is.
func (a *agent) ready(t testing.TB) {
	t.Helper()
	testnet.Eventually(t, longest, func() error {
		if body, code := a.get("/readyz"); code != http.StatusOK {
			return fmt.Errorf("%s: not ready: %s", a.host.Name, body)
		}
		return nil
	})
}

// get asks the agent by HTTP, from its own host. The code is 0 where it does
// not answer.
func (a *agent) get(path string) (string, int) { return a.fetch(9178, "127.0.0.1", path) }

// fetch gets a path from a port of the agent, from its own host, with the header
// Host. The code is 0 where it does not answer.
func (a *agent) fetch(port int, host, path string) (string, int) {
	out, err := a.host.Output(context.Background(), "bash", "-c",
		`exec 3<>/dev/tcp/127.0.0.1/$0; printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$1" "$2" >&3; cat <&3`, strconv.Itoa(port), path, host)
	if err != nil {
		return err.Error(), 0
	}
	head, body, _ := strings.Cut(out, "\r\n\r\n")
	var proto string
	var code int
	if _, err := fmt.Sscan(head, &proto, &code); err != nil {
		return out, 0
	}
	return body, code
}

var _ io.Writer = (*agent)(nil)
