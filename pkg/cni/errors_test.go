package cni_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"ovs-gre-cni/pkg/cni"
	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/state"
)

var (
	known   = &config.Problem{Key: "mtu", Value: "x", Reason: "want a number"}
	unknown = &config.Problem{Key: "segment", Value: `"x"`, Reason: "want host", Unsupported: true}
)

func delegate(code uint) error {
	return fmt.Errorf("IPAM: %w", &types.Error{Code: code, Msg: "no address", Details: "pool\nis full"})
}

// TestFrom: each error has its code, and of several the one that an operator
// must mend.
func TestFrom(t *testing.T) {
	for _, tt := range []struct {
		name         string
		err          error
		code, status uint
	}{
		{"anything", errors.New("disk full"), 5, 50},
		{"not JSON", config.ErrDecode, 6, 6},
		{"confined", kernel.ErrConfined, 103, 50},
		{"environment", fault.ErrEnvironment, 4, 50},
		{"invalid", known, 7, 7},
		{"unsupported", unknown, 2, 2},
		{"all unsupported", errors.Join(unknown, unknown), 2, 2},
		{"all unsupported, wrapped", fmt.Errorf("file: %w", errors.Join(unknown, unknown)), 2, 2},
		{"unsupported and invalid", errors.Join(unknown, known), 7, 7},
		{"unsupported and invalid, wrapped", fmt.Errorf("file: %w", errors.Join(unknown, known)), 7, 7},
		{"unsupported and another", errors.Join(unknown, fault.ErrForeign), 7, 7},
		{"network namespace", fault.ErrNetns, types.ErrInvalidNetNS, 50},
		{"foreign", fault.ErrForeign, 102, 50},
		{"refused", fault.ErrRefused, 101, 50},
		{"no nodes file", nodes.ErrNotReady, 11, 50},
		{"OVS", fault.ErrUnavailable, 11, 50},
		{"lock", fault.ErrBusy, 11, 50},
		{"no route", kernel.ErrNoRoute, 11, 50},
		{"unreachable", state.ErrUnreachable, 11, 50},
		{"time is up", context.DeadlineExceeded, 11, 50},
		{"drift", state.DriftOfTexts("link is down"), 100, 50},
		{"limited", fmt.Errorf("%w: %w", fault.ErrLimited, fault.ErrUnavailable), 11, 51},
		{"foreign before refused", errors.Join(fault.ErrRefused, fault.ErrForeign), 102, 50},
		{"invalid before unreachable", fmt.Errorf("%w: %w", config.ErrInvalid, state.ErrUnreachable), 7, 7},
		{"drift last", errors.Join(fault.ErrDrift, fault.ErrUnavailable), 11, 50},
		{"delegate's code", delegate(120), 120, 50},
		{"delegate's 51", delegate(51), 51, 51},
		{"delegate's unknown container", delegate(types.ErrUnknownContainer), 5, 50},
		{"delegate's internal error", delegate(types.ErrInternal), 5, 50},
	} {
		var add, status *types.Error
		if !errors.As(cni.From(tt.err), &add) || add.Code != tt.code {
			t.Errorf("%s: %+v, want code %d", tt.name, add, tt.code)
		}
		if !errors.As(cni.FromStatus(tt.err), &status) || status.Code != tt.status {
			t.Errorf("%s: STATUS %+v, want code %d", tt.name, status, tt.status)
		}
	}
	if cni.From(nil) != nil || cni.FromStatus(nil) != nil {
		t.Error("an error from nil")
	}
}

// TestText: the message is one line, and details say what the message leaves out.
func TestText(t *testing.T) {
	for _, tt := range []struct {
		err          error
		msg, details string
	}{
		{errors.Join(errors.New("a"), errors.New("b"), errors.New("a")), "a; b", ""},
		{errors.New("red \x1b[31m\u0085."), "red ?[31m .", ""},
		{delegate(11), "IPAM: no address; pool; is full", "pool; is full"},
		{state.Drift{{Text: "link og1 is down", Command: "ip link set og1 up"}, {Text: "route is missing"}},
			"link og1 is down (and 1 more)", "link og1 is down; by hand: ip link set og1 up\nroute is missing"},
	} {
		var e *types.Error
		if !errors.As(cni.From(tt.err), &e) || e.Msg != tt.msg || e.Details != tt.details {
			t.Errorf("%q: message %q, details %q; want %q and %q", tt.err, e.Msg, e.Details, tt.msg, tt.details)
		}
	}
}

// TestPrint: the version of the specification stands beside the error.
func TestPrint(t *testing.T) {
	for version, want := range map[string]string{"0.4.0": `"cniVersion": "0.4.0"`, "": `"cniVersion": "1.1.0"`} {
		var b strings.Builder
		err := cni.Print(&b, version, &types.Error{Code: 7, Msg: "mtu"})
		if err != nil || !strings.Contains(b.String(), want) || !strings.Contains(b.String(), `"code": 7`) {
			t.Errorf("version %q: %s, %v", version, b.String(), err)
		}
	}
}
