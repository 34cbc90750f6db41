package cnitest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"ovs-gre-cni/pkg/testnet"
)

// A Container is a network namespace attached to a network.
type Container struct {
	*testnet.Netns
	Network string
	IfName  string
	Result  *current.Result
}

// Add makes a namespace on the host and attaches it by cnitool.
func Add(t testing.TB, h *testnet.Host, network, name string) *Container {
	t.Helper()
	c := &Container{Netns: h.NewNetns(t, name), Network: network, IfName: "eth0"}
	c.Attach(t)
	return c
}

// Attach calls ADD and fails the test on an error.
func (c *Container) Attach(t testing.TB, env ...string) {
	t.Helper()
	if err := c.Call("add", env...); err != nil {
		t.Fatalf("%s: cnitool add %s %s: %v", c.Host.Name, c.Network, c.Path, err)
	}
}

// Call calls cnitool with a verb. The error is what it printed.
func (c *Container) Call(verb string, env ...string) error {
	cmd := c.Host.Command(context.Background(), "/opt/cni/bin/cnitool", verb, c.Network, c.Path)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH=/opt/cni/bin", "CNI_IFNAME=" + c.IfName}, env...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s%s(%w)", out.String(), firstLines(errs.String()), err)
	}
	if verb == "add" {
		c.Result = &current.Result{}
		return json.Unmarshal([]byte(out.String()), c.Result)
	}
	return nil
}

// firstLines drops the usage that cnitool prints with every error.
func firstLines(s string) string {
	s, _, _ = strings.Cut(s, "Usage:")
	return s
}

// Addr is the container's address of a family.
func (c *Container) Addr(t testing.TB, v6 bool) netip.Addr {
	t.Helper()
	for _, ip := range c.Result.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok && a.Unmap().Is6() == v6 {
			return a.Unmap()
		}
	}
	t.Fatalf("%s has no address of that family in %v", c.Name, c.Result.IPs)
	return netip.Addr{}
}

// Plugin calls a plugin as a runtime does, without libcni. The error is a
// *types.Error where the plugin printed one.
func Plugin(h *testnet.Host, plugin, verb, stdin string, env ...string) (stdout string, err error) {
	cmd := h.Command(context.Background(), "/opt/cni/bin/"+plugin)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH=/opt/cni/bin", "CNI_COMMAND=" + verb}, env...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	runErr := cmd.Run()
	if runErr == nil {
		return out.String(), nil
	}
	var e types.Error
	if json.Unmarshal([]byte(out.String()), &e) == nil && e.Msg != "" {
		return out.String(), &e
	}
	return out.String(), fmt.Errorf("%w: %s%s", runErr, out.String(), errs.String())
}

// PluginConf is one plugin's configuration out of a conflist, as libcni hands
// it on, with more keys on top.
func PluginConf(t testing.TB, conflist, plugin string, more Conf) string {
	t.Helper()
	var list struct {
		CNIVersion string `json:"cniVersion"`
		Name       string `json:"name"`
		Plugins    []Conf `json:"plugins"`
	}
	if err := json.Unmarshal([]byte(conflist), &list); err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Plugins {
		if p["type"] == plugin {
			p["cniVersion"], p["name"] = list.CNIVersion, list.Name
			merge(p, more)
			raw, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			return string(raw)
		}
	}
	t.Fatalf("no plugin %s in the conflist", plugin)
	return ""
}
