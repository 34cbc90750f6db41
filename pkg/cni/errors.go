// Package cni turns errors into CNI errors, whose codes no other package knows,
// and reads the results of other plugins.
package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/state"
)

// Codes of our own; those below 100 are the specification's ("Error" in
// SPEC.md of containernetworking/cni).
const (
	// Drift: CHECK found something that is not as it should be.
	Drift uint = 100
	// Refused: OVS will not have what it was asked for.
	Refused uint = 101
	// Foreign: something that is not ours is in the way.
	Foreign uint = 102
	// Confined: the host's network is out of the process's reach.
	Confined uint = 103
)

// netnsCode is skel's for a network namespace that is none; the
// specification's table has no such row.
const netnsCode uint = types.ErrInvalidNetNS

// The first row that fits counts: what an operator must mend comes before
// what time may.
var table = []struct {
	err  error
	code uint
}{
	{config.ErrDecode, types.ErrDecodingFailure},
	{kernel.ErrConfined, Confined},
	{fault.ErrEnvironment, types.ErrInvalidEnvironmentVariables},
	{config.ErrInvalid, types.ErrInvalidNetworkConfig},
	{fault.ErrNetns, netnsCode},
	{fault.ErrForeign, Foreign},
	{fault.ErrRefused, Refused},
	{nodes.ErrNotReady, types.ErrTryAgainLater},
	{fault.ErrUnavailable, types.ErrTryAgainLater},
	{fault.ErrBusy, types.ErrTryAgainLater},
	{kernel.ErrNoRoute, types.ErrTryAgainLater},
	{state.ErrUnreachable, types.ErrTryAgainLater},
	{context.DeadlineExceeded, types.ErrTryAgainLater},
	{fault.ErrDrift, Drift},
}

// From returns the CNI error for err, and nil for nil. A CNI error inside,
// such as an IPAM plugin's, keeps its code, unless it is one that we never
// give: 3, which tells the runtime to skip DEL, or 999.
func From(err error) error {
	if err == nil {
		return nil
	}
	return told(code(err), err)
}

// most is how many characters a message has at most; all of a longer one is in
// the details. Runtimes cut what is longer, mostly from its end, where it says
// what is wrong. It is a choice.
const most = 400

// told is the CNI error with a message that is not too long: of several
// problems, those that there is room for.
func told(code uint, err error) *types.Error {
	e := &types.Error{Code: code, Msg: oneLine(err.Error()), Details: details(err)}
	if utf8.RuneCountInString(e.Msg) <= most {
		return e
	}
	e.Details = strings.TrimPrefix(e.Details+"\n"+e.Msg, "\n")
	problems := distinct(err.Error())
	more := fmt.Sprintf("; and %d more in details", len(problems))
	room := most - utf8.RuneCountInString(more)
	msg, n := "", 0
	for _, p := range problems {
		next := strings.TrimPrefix(msg+"; "+config.Printable(p), "; ")
		if utf8.RuneCountInString(next) > room {
			break
		}
		msg, n = next, n+1
	}
	if n == 0 { // the first one alone is too long
		msg, n = string([]rune(config.Printable(problems[0]))[:room-1])+"…", 1
	}
	if e.Msg = msg; n < len(problems) {
		e.Msg += fmt.Sprintf("; and %d more in details", len(problems)-n)
	}
	return e
}

// FromStatus is From for STATUS: 51 where containers suffer, 50 where only
// ADD does not work.
func FromStatus(err error) error {
	if err == nil {
		return nil
	}
	c := code(err)
	switch {
	case errors.Is(err, fault.ErrLimited):
		c = types.ErrLimitedConnectivity
	case c != types.ErrLimitedConnectivity && c != types.ErrInvalidNetworkConfig &&
		c != types.ErrDecodingFailure && c != types.ErrUnsupportedField:
		c = types.ErrPluginNotAvailable
	}
	return told(c, err)
}

// Print writes an error as the specification wants it, which skel does not:
// with the version of the protocol in use. "" is the latest that we speak,
// where no configuration was read.
func Print(w io.Writer, version string, e *types.Error) error {
	if version == "" {
		version = current.ImplementedSpecVersion
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "    ")
	return enc.Encode(struct {
		CNIVersion string `json:"cniVersion"`
		*types.Error
	}{version, e})
}

func code(err error) uint {
	var said *types.Error
	if errors.As(err, &said) && said.Code != types.ErrUnknownContainer && said.Code != types.ErrInternal {
		return said.Code
	}
	for _, row := range table {
		if !errors.Is(err, row.err) {
			continue
		}
		if errors.Is(row.err, config.ErrInvalid) && unsupported(err) {
			return types.ErrUnsupportedField
		}
		return row.code
	}
	return types.ErrIOFailure
}

// unsupported reports whether all that is wrong with the configuration is
// values that this version does not know.
func unsupported(err error) bool {
	var several interface{ Unwrap() []error }
	if errors.As(err, &several) {
		list := several.Unwrap()
		return len(list) > 0 && !slices.ContainsFunc(list, func(one error) bool { return !unsupported(one) })
	}
	var p *config.Problem
	return errors.As(err, &p) && p.Unsupported
}

// details are the differences of a state.Drift with their commands, or what a delegate said more.
func details(err error) string {
	var drift state.Drift
	if errors.As(err, &drift) {
		lines := make([]string, len(drift))
		for i, l := range drift {
			lines[i] = oneLine(l.String())
		}
		return strings.Join(lines, "\n")
	}
	var said *types.Error
	if errors.As(err, &said) {
		return oneLine(said.Details)
	}
	return ""
}

// oneLine keeps a message from breaking a log line or a terminal.
func oneLine(s string) string { return config.Printable(strings.Join(distinct(s), "; ")) }

// distinct are the lines of a text. What several steps failed with in the same
// words is said once.
func distinct(s string) []string {
	var said []string
	for line := range strings.SplitSeq(strings.TrimSpace(s), "\n") {
		if !slices.Contains(said, line) {
			said = append(said, line)
		}
	}
	return said
}
