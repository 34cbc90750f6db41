package cnitest

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/testnet"
)

// WantError looks for a CNI error with the code and all of the texts in it.
func WantError(t testing.TB, err error, code uint, texts ...string) {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) {
		t.Errorf("want a CNI error of code %d, got %v", code, err)
		return
	}
	if e.Code != code {
		t.Errorf("want code %d, got %d: %s", code, e.Code, e.Msg)
	}
	for _, text := range texts {
		if !strings.Contains(e.Msg, text) {
			t.Errorf("want %q in the message: %s", text, e.Msg)
		}
	}
	if strings.ContainsAny(e.Msg, "\n\r") {
		t.Errorf("the message has more than a line: %q", e.Msg)
	}
}

// Call calls one plugin for a namespace, as a runtime does.
func Call(n *testnet.Netns, plugin, verb, conf string, env ...string) (string, error) {
	env = append([]string{"CNI_CONTAINERID=" + n.Name, "CNI_NETNS=" + n.Path, "CNI_IFNAME=eth0"}, env...)
	return Plugin(n.Host, plugin, verb, conf, env...)
}

// Result calls ADD and reads what it prints.
func Result(t testing.TB, n *testnet.Netns, plugin, conf string, env ...string) *current.Result {
	t.Helper()
	out, err := Call(n, plugin, "ADD", conf, env...)
	if err != nil {
		t.Fatalf("%s ADD: %v", plugin, err)
	}
	res := &current.Result{}
	if err := json.Unmarshal([]byte(out), res); err != nil {
		t.Fatalf("%s ADD: %v: %s", plugin, err, out)
	}
	return res
}

// ID is the container ID that cnitool makes of a namespace's path.
func (c *Container) ID() string {
	sum := sha512.Sum512([]byte(c.Path))
	return fmt.Sprintf("cnitool-%x", sum[:10])
}

// Port is the OVS port of a container, which is also the host's end of its veth pair.
func (c *Container) Port() string { return config.PortName(c.Network, c.ID(), c.IfName) }

// A Reply is what a call of ovs-grectl printed, and its exit code.
type Reply struct {
	Out, Err string
	Code     int
}

// Ctl calls ovs-grectl on a host.
func Ctl(t testing.TB, h *testnet.Host, args ...string) Reply {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := h.Command(ctx, "/opt/cni/bin/ovs-grectl", args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: ovs-grectl %v: %v", h.Name, args, err)
	}
	return Reply{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}
