package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// counts are what the system calls of a plugin tell.
type counts struct {
	// Execs of programs, the plugin itself included.
	Execs int
	// Dials of OVSDB, and Requests sent to it.
	Dials, Requests int
	// Netlink is how many times it sent to the kernel.
	Netlink int
	// Waits that nothing but the clock ended.
	Waits int
}

// TestCalls counts instead of measuring: what an ADD asks of OVSDB and of the
// kernel while the network stands and one container is there already.
func TestCalls(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("no strace on this machine: apt-get install strace")
	}
	l := testnet.New(t, testnet.Options{Hosts: 2, PluginDir: cnitest.BinDir(t)})
	h, n := l.Hosts[0], cnitest.Network{}
	n.Install(t, l)
	cnitest.Add(t, h, n.NetworkName(), "first")
	ns := h.NewNetns(t, "second")

	stdin := cnitest.PluginConf(t, n.Conflist(l), "ovs-gre", nil)
	result, got := traced(t, h, "ovs-gre", stdin, ns.Path)
	// Three of the messages are the container's neighbour entries and the look-up
	// of their link.
	atMost(t, "ovs-gre ADD", got, counts{Execs: 1, Dials: 1, Requests: 5, Netlink: 28})

	var prev any
	if err := json.Unmarshal([]byte(result), &prev); err != nil {
		t.Fatalf("%v: %s", err, result)
	}
	stdin = cnitest.PluginConf(t, n.Conflist(l), "route-sync", cnitest.Conf{"prevResult": prev})
	_, got = traced(t, h, "route-sync", stdin, ns.Path)
	atMost(t, "route-sync ADD", got, counts{Execs: 1, Netlink: 6})
}

func atMost(t *testing.T, what string, got, want counts) {
	t.Helper()
	if got.Execs != want.Execs || got.Dials != want.Dials || got.Requests > want.Requests || got.Netlink > want.Netlink || got.Waits > want.Waits {
		t.Errorf("%s: %+v, want at most %+v", what, got, want)
	}
	if got.Netlink == 0 || (got.Requests == 0) != (want.Requests == 0) {
		t.Errorf("%s: %+v: the trace cannot be read", what, got)
	}
}

// traced calls ADD of a plugin and counts its system calls.
func traced(t *testing.T, h *testnet.Host, plugin, stdin, netns string) (stdout string, c counts) {
	t.Helper()
	dir := t.TempDir()
	// A file a thread: no call is cut in two by another thread's.
	cmd := h.Command(context.Background(), "strace", "-ff", "-qq", "-y", "-s", "0",
		"-e", "trace=execve,connect,write,sendto,sendmsg,epoll_pwait,futex", "-o", dir+"/trace", "/opt/cni/bin/"+plugin)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH=/opt/cni/bin", "CNI_COMMAND=ADD",
		"CNI_CONTAINERID=second", "CNI_IFNAME=eth0", "CNI_NETNS=" + netns}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", plugin, err, out)
	}
	files, err := filepath.Glob(dir + "/trace.*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no trace: %v", err)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			c.count(s.Text())
		}
	}
	return string(out), c
}

var (
	// The only socket that is written to.
	toOVSDB   = regexp.MustCompile(`^write\(\d+<(socket|UNIX)`)
	toNetlink = regexp.MustCompile(`^send(to|msg)\(.*AF_NETLINK`)
	// A time-out that is not 0 came: nothing, of a time in ms.
	waited = regexp.MustCompile(`^epoll_pwait\(.*, \[\], \d+, [1-9]\d*, .*= 0`)
)

func (c *counts) count(line string) {
	switch {
	case strings.HasPrefix(line, "execve("):
		c.Execs++
	case strings.HasPrefix(line, "connect(") && strings.Contains(line, "db.sock"):
		c.Dials++
	case toOVSDB.MatchString(line):
		c.Requests++
	case toNetlink.MatchString(line):
		c.Netlink++
	case waited.MatchString(line):
		c.Waits++
	}
}
