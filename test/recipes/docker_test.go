package recipes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// bringUp bounds what starting or ending a Docker Engine may take.
const bringUp = 2 * time.Minute

// image is the name of the image that every Docker Engine of the lab gets.
const image = "localhost/recipes:latest"

// A docker is a Docker Engine on a host.
type docker struct {
	host  *testnet.Host
	named int
	// network is the network that containers are put on; "" is Docker's choice.
	network string
	// stop ends the engine and all its containers.
	stop func()
}

// startDocker starts the distribution's Docker Engine on a host, see start.
func startDocker(t *testing.T, h *testnet.Host, options ...string) *docker {
	t.Helper()
	return distribution.start(t, h, obj{}, options...)
}

// start starts a Docker Engine on a host, by what daemon.json says: all paths of
// it are the host's own, for the lab's hosts have their own /run; what it keeps
// on disk is in the lab's directory. It ends with the test.
func (e engine) start(t *testing.T, h *testnet.Host, conf obj, options ...string) *docker {
	t.Helper()
	needDocker(t)
	d := &docker{host: h}
	disk := h.Dir + "/docker"
	// What the machine's own engine is told to do is none of ours.
	h.WriteFile(t, disk+"/daemon.json", e.conf(t, conf))
	args := append([]string{"--config-file", disk + "/daemon.json", "--data-root", disk + "/data", "--exec-root", "/run/docker",
		"--pidfile", "/run/docker.pid", "--host", "unix:///run/docker.sock", "--exec-opt", "native.cgroupdriver=cgroupfs"}, options...)
	log, err := os.OpenFile(filepath.Join(disk, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := h.Command(context.Background(), "dockerd", args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "PATH="+e.path())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	stopped := false
	d.stop = func() {
		if stopped {
			return
		}
		stopped = true
		// A container that dies with its host would leave its cgroups behind.
		_, _ = h.Output(context.Background(), "sh", "-c", `docker -H unix:///run/docker.sock ps -aq | xargs -r docker -H unix:///run/docker.sock rm -f; kill "$(cat /run/docker.pid)"`)
		select {
		case <-ended:
		case <-time.After(bringUp):
			_ = cmd.Process.Kill()
			<-ended
			t.Errorf("%s: dockerd does not end", h.Name)
		}
		if t.Failed() {
			raw, _ := os.ReadFile(log.Name())
			lines := strings.Split(string(raw), "\n")
			t.Logf("%s: dockerd:\n%s", h.Name, strings.Join(lines[max(0, len(lines)-30):], "\n"))
		}
	}
	t.Cleanup(d.stop)
	testnet.Eventually(t, bringUp, func() error {
		select {
		case <-ended:
			raw, _ := os.ReadFile(log.Name())
			t.Fatalf("%s: dockerd %v has ended:\n%s", h.Name, options, raw)
		default:
		}
		_, err := d.output("version", "--format", "{{.Server.Version}}")
		return err
	})
	if out, _ := d.output("image", "ls", "-q", image); out == "" {
		tarball := disk + "/image.tar"
		if err := os.WriteFile(tarball, cnitest.Image(t, image), 0o600); err != nil {
			t.Fatal(err)
		}
		d.run(t, "load", "-i", tarball)
	}
	return d
}

// needDocker skips the test where the machine has no Docker Engine, and fails
// it where the environment says CI=true.
func needDocker(t *testing.T) {
	t.Helper()
	var errs []error
	for program, pkg := range map[string]string{"dockerd": "docker.io", "docker": "docker.io", "containerd": "containerd", "runc": "runc", "busybox": "busybox-static", "iptables": "iptables"} {
		if _, err := exec.LookPath(program); err != nil {
			errs = append(errs, fmt.Errorf("no %s on this machine: apt-get install %s", program, pkg))
		}
	}
	err := errors.Join(errs...)
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
}

func (d *docker) output(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), bringUp)
	defer cancel()
	out, err := d.host.Output(ctx, "docker", append([]string{"-H", "unix:///run/docker.sock"}, args...)...)
	return strings.TrimSpace(out), err
}

func (d *docker) run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := d.output(args...)
	if err != nil {
		t.Fatalf("%s: %v", d.host.Name, err)
	}
	return out
}

// A dockerContainer is a container of a Docker Engine.
type dockerContainer struct {
	engine *docker
	name   string
	addr   netip.Addr
}

// container runs a container that serves /tmp over HTTP, until the test ends.
func (d *docker) container(t testing.TB) *dockerContainer {
	t.Helper()
	d.named++
	name := fmt.Sprintf("c%d", d.named)
	args := []string{"run", "-d", "--pull=never", "--name", name}
	if d.network != "" {
		args = append(args, "--network", d.network)
	}
	d.run(t, append(args, image, "httpd", "-f", "-h", "/tmp")...)
	addr, err := netip.ParseAddr(d.run(t, "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name))
	if err != nil {
		t.Fatalf("%s: %s: %v", d.host.Name, name, err)
	}
	return &dockerContainer{d, name, addr}
}

// exec runs a shell script in the container.
func (c *dockerContainer) exec(script string) (string, error) {
	return c.engine.output("exec", c.name, "sh", "-ec", script)
}

func (c *dockerContainer) String() string {
	return fmt.Sprintf("container %s (%s) on %s", c.name, c.addr, c.engine.host.Name)
}

// reach pings from the container and wants an answer.
func (c *dockerContainer) reach(t testing.TB, to netip.Addr) {
	t.Helper()
	if out, err := c.exec("ping -c 1 -W 10 " + to.String()); err != nil {
		t.Errorf("%s to %s: %v\n%s", c, to, err, out)
	}
}

// fetch transfers some megabytes over TCP from another container to this one.
func (c *dockerContainer) fetch(t testing.TB, from *dockerContainer) {
	t.Helper()
	want, err := from.exec("[ -e /tmp/data ] || head -c 4194304 /dev/urandom >/tmp/data; sha256sum </tmp/data")
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.exec("timeout 60 wget -q -O - http://" + from.addr.String() + "/data | sha256sum")
	if err != nil || got != want {
		t.Errorf("%s from %s: got %q, want %q: %v", c, from, got, want, err)
	}
}
