package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// target is where TestInstall installs: the lab's /opt/cni/bin is read-only.
const target = "/opt/cni/target"

// TestInstall: plugins are replaced under the hands of a runtime that calls
// them all the time, and a killed install leaves no half of one.
func TestInstall(t *testing.T) {
	l := testnet.New(t, testnet.Options{Hosts: 1, NoOVS: true, PluginDir: cnitest.BinDir(t)})
	h, ctx := l.Hosts[0], context.Background()
	h.Shell(t, `mkdir -p /opt/cni/a /opt/cni/b `+target+`
		cp /opt/cni/bin/ovs-gre /opt/cni/bin/route-sync /opt/cni/a; cp /opt/cni/a/* /opt/cni/b
		for f in /opt/cni/b/*; do head -c 20000000 /dev/zero >>$f; done`)
	from := func(dir string) string { return h.Run(t, program, "install", "--from", dir, "--to", target) }
	from("/opt/cni/a")
	inode := "stat -c '%i %Y %n' " + target + "/*"
	before := h.Shell(t, inode)
	from("/opt/cni/a")
	if after := h.Shell(t, inode); after != before {
		t.Errorf("the second install of the same:\n%swas\n%s", after, before)
	}
	var all sync.WaitGroup
	done := make(chan struct{})
	all.Go(func() {
		for calls := 0; ; calls++ {
			select {
			case <-done:
				t.Logf("called %d times meanwhile", calls)
				return
			default:
			}
			cmd := h.Command(ctx, target+"/ovs-gre")
			cmd.Env = []string{"CNI_COMMAND=VERSION"}
			cmd.Stdin = strings.NewReader(`{"cniVersion":"1.1.0"}`)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("call %d: %v: %s", calls, err, out)
			}
		}
	})
	for i := range 20 {
		dir := []string{"/opt/cni/b", "/opt/cni/a"}[i%2]
		if i%4 == 2 {
			h.Shell(t, fmt.Sprintf("timeout -s KILL 0.0%d %s install --from %s --to %s || true", i, program, dir, target))
		}
		from(dir)
		h.Shell(t, "cmp "+dir+"/ovs-gre "+target+"/ovs-gre && cmp "+dir+"/route-sync "+target+"/route-sync")
	}
	close(done)
	all.Wait()
	h.Shell(t, "echo newer >"+target+"/portmap; cp /opt/cni/bin/portmap /opt/cni/bin/bandwidth /opt/cni/a")
	from("/opt/cni/a")
	if out := h.Shell(t, "cat "+target+"/portmap; cmp /opt/cni/a/bandwidth "+target+"/bandwidth; rm "+target+"/portmap "+target+"/bandwidth"); out != "newer\n" {
		t.Errorf("another's plugin is %.20q", out)
	}
	if out := h.Shell(t, "ls -A "+target); out != "ovs-gre\nroute-sync\n" {
		t.Errorf("there is\n%s", out)
	}
}

// TestConflist: a runtime that looks sees the old file or the new one, and
// another's file of that name stays.
func TestConflist(t *testing.T) {
	l := lab(t, 1, 1)
	h := l.Hosts[0]
	first := start(t, h)
	first.ready(t)
	if out, err := h.Output(context.Background(), program, "uninstall"); err == nil || !strings.Contains(err.Error(), "an agent runs on this host") {
		t.Errorf("uninstall beside an agent: %s, %v", out, err)
	}
	first.end()
	var all sync.WaitGroup
	done := make(chan struct{})
	seen := map[string]int{}
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			var file struct{ CNIVersion string }
			out := h.Run(t, "cat", conflist)
			if err := json.Unmarshal([]byte(out), &file); err != nil {
				t.Errorf("the conflist is %q: %v", out, err)
			}
			seen[file.CNIVersion]++
		}
	})
	for i := range 10 {
		was, will := "1.1.0", "1.0.0"
		if i%2 == 1 {
			was, will = will, was
		}
		h.Shell(t, fmt.Sprintf(`sed -i 's/"cniVersion": "%s"/"cniVersion": "%s"/' %s; ln -f %s /etc/cni/was`, was, will, template, conflist))
		a := start(t, h, "--listen", "")
		testnet.Eventually(t, longest, func() error {
			if out := h.Run(t, "cat", conflist); !strings.Contains(out, `"cniVersion": "`+will+`"`) {
				return fmt.Errorf("want %s in\n%s", will, out)
			}
			return nil
		})
		a.end()
		// Who has the old file open reads it to its end.
		if out := h.Run(t, "cat", "/etc/cni/was"); !strings.Contains(out, `"cniVersion": "`+was+`"`) {
			t.Errorf("the old file was written to:\n%s", out)
		}
	}
	close(done)
	all.Wait()
	if len(seen) != 2 {
		t.Errorf("versions seen: %v", seen)
	}
	if out := h.Shell(t, "ls -A /etc/cni/net.d"); out != "10-ovs-gre.conflist\n" {
		t.Errorf("net.d has %s", out)
	}

	// A disk that was full.
	h.Shell(t, ": >"+conflist)
	mends := start(t, h, "--listen", "")
	testnet.Eventually(t, longest, func() error {
		if out := h.Run(t, "cat", conflist); !strings.Contains(out, "ovs-gre") {
			return fmt.Errorf("the conflist is %q", out)
		}
		return nil
	})
	mends.end()

	const other = `{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"bridge"}]}`
	h.WriteFile(t, conflist, other)
	a := start(t, h, "--listen", "127.0.0.1:9179")
	testnet.Eventually(t, longest, func() error {
		if said := a.said(); !strings.Contains(said, "does not name ovs-gre") {
			return fmt.Errorf("the agent said\n%s", said)
		}
		return nil
	})
	a.end()
	if out, err := h.Output(context.Background(), program, "uninstall"); err == nil || !strings.Contains(err.Error(), "does not name ovs-gre") {
		t.Errorf("uninstall took another's conflist: %s", out)
	}
	if out := h.Run(t, "cat", conflist); out != other {
		t.Errorf("another's conflist is now %s", out)
	}
}

// TestTemplate: what a template must not say is refused at once.
func TestTemplate(t *testing.T) {
	l := lab(t, 1, 1)
	h := l.Hosts[0]
	good := conf(t, l)
	for what, text := range map[string]string{
		"nodesFile":    strings.Replace(good, `"segment"`, `"nodesFile":"/x","segment"`, 1),
		"node":         strings.Replace(good, `"segment"`, `"node":"x","segment"`, 1),
		"sekment":      strings.Replace(good, `"segment"`, `"sekment"`, 1),
		"not among":    strings.ReplaceAll(good, `"ovs-gre"`, `"bridge"`),
		"cannot parse": "{",
	} {
		h.WriteFile(t, "/etc/cni/bad.json", text)
		want := what
		if text == "{" {
			want = "JSON"
		}
		_, err := h.Output(context.Background(), "timeout", "20", program, "run", "--template", "/etc/cni/bad.json", "--nodes-file", nodesFile, "--listen", "")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "124") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestUninstall: it leaves nothing, whether containers are there or not, and
// containers can still be detached.
func TestUninstall(t *testing.T) {
	l := lab(t, 2, 2)
	h := l.Hosts[0]
	h.Shell(t, "mkdir -p /etc/cni/net.d")
	// Sysctls stay as they are: nobody knows who else needs them.
	before, files := cnitest.MustLook(t, h), installed(t, h)
	start(t, h).end()
	a := start(t, h)
	a.ready(t)
	with := cnitest.Add(t, h, network, "with")
	cached := h.Run(t, "cat", conflist)
	a.stop(t)
	h.Run(t, program, "uninstall")
	plugin := cnitest.PluginConf(t, cached, "ovs-gre", nil)
	env := []string{"CNI_CONTAINERID=" + containerID(t, h), "CNI_NETNS=" + with.Path, "CNI_IFNAME=eth0"}
	if out, err := cnitest.Plugin(h, "ovs-gre", "DEL", plugin, env...); err != nil {
		t.Errorf("DEL after uninstall: %v %s", err, out)
	}
	with.Delete(t)
	h.Shell(t, "rm -r /var/lib/cni/results /var/lib/cni/networks")
	testnet.Eventually(t, longest, func() error {
		if now := installed(t, h); now != files {
			return fmt.Errorf("files: before\n%s\nafter\n%s", files, now)
		}
		return before.Left(h)
	})
	h.Run(t, program, "uninstall") // again
	// The conflist is gone, the host state is not; the plugins go, too.
	a = start(t, h)
	a.ready(t)
	a.stop(t)
	h.Shell(t, "rm "+conflist+"; mkdir "+target+"; cp /opt/cni/bin/* "+target)
	if err := h.StopOVS(context.Background()); err != nil {
		t.Fatal(err)
	}
	u := command(t, h, "uninstall", "--wait", "--plugins", target, "--listen", "127.0.0.1:9178")
	testnet.Eventually(t, longest, func() error {
		if body, code := u.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "OVS") {
			return fmt.Errorf("readyz without OVS: %d %s", code, body)
		}
		return nil
	})
	if err := h.StartOVS(context.Background()); err != nil {
		t.Fatal(err)
	}
	u.ready(t)
	if err := before.Left(h); err != nil {
		t.Error(err)
	}
	if now := installed(t, h); now != files {
		t.Errorf("files: before\n%s\nafter\n%s", files, now)
	}
	if out := h.Shell(t, "ls "+target); strings.Contains(out, "ovs-gre\n") || strings.Contains(out, "route-sync") || !strings.Contains(out, "portmap") {
		t.Errorf("of the plugins there is\n%s", out)
	}
	u.stop(t)
}

// containerID is the id of the only container of a host, from libcni's cache.
func containerID(t testing.TB, h *testnet.Host) string {
	t.Helper()
	var cached struct{ ContainerID string }
	if err := json.Unmarshal([]byte(h.Shell(t, "cat /var/lib/cni/results/*")), &cached); err != nil {
		t.Fatal(err)
	}
	return cached.ContainerID
}

// installed are the files of the agent and the plugins, without those of containers.
func installed(t testing.TB, h *testnet.Host) string {
	t.Helper()
	return h.Shell(t, "find /var/lib/ovs-gre /etc/cni/net.d 2>/dev/null || true")
}
