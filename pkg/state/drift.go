package state

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"ovs-gre-cni/pkg/config"
)

// maxDrift is the most characters of Drift; where it quotes a foreign rule, it has twice
// as many. A choice: runtimes cut long messages.
const maxDrift = 120

// Drift returns the change as CHECK reports it, in one sentence of about 120
// characters: the thing, the attribute that differs, its value and the wanted one.
func (c Change) Drift() string {
	switch {
	case c.Old == nil:
		return clip(c.New.Noun()+" is missing", maxDrift)
	case c.New == nil:
		return clip(c.Old.Noun()+" is left over", maxDrift)
	}
	noun := c.New.Noun() + " differs: "
	if f, ok := c.Old.(Foreign); ok {
		return clip(noun+"in its place is "+f.Have, maxDrift)
	}
	list := attributes(c.Old, c.New)
	if len(list) == 0 { // of another type: its String describes it
		return clip(noun+c.Old.String(), 2*maxDrift)
	}
	more := ""
	if len(list) > 1 {
		more = fmt.Sprintf(" (and %d more)", len(list)-1)
	}
	return clip(noun+list[0], maxDrift-len(more)) + more
}

// Command is the command that makes it as it should be; of what is left over,
// the one that made it; "" where it is too long to be typed.
func (c Change) Command() string {
	if c.New == nil {
		return typed(c.Old, "")
	}
	command := typed(c.New, "")
	name := c.New.ID().Name
	if _, ok := c.New.(Port); ok { // without it the port is taken for one of a former boot
		command += " external_ids:ovs-gre.boot-id=$(cat /proc/sys/kernel/random/boot_id)"
	}
	switch was := c.Old.(type) {
	case Bridge:
		if was.Controller {
			command += " -- del-controller " + name
		}
		if was.SpanningTree {
			command += " -- set bridge " + name + " stp_enable=false rstp_enable=false"
		}
		switch {
		case was.PortOf != "":
			return "ovs-vsctl del-port " + name + " && " + command
		case was.Flows != "": // with another fail_mode ovs-vswitchd makes them anew
			return "ovs-vsctl set bridge " + name + " fail_mode=" + FailSecure + " && " + command
		}
	case Tunnel, Port: // OVS lets go of a port, or of options, only in a transaction of its own
		return "ovs-vsctl --if-exists del-port " + name + " && " + command
	}
	return command
}

// attributes returns a text for each attribute that differs: its name, value and wanted
// value. The name is the field's tag says, as in ovs-vsctl, ip or nft. An attribute
// whose value alone is the fault has the tag fault, the text before the value.
func attributes(have, want Object) []string {
	h, w := reflect.ValueOf(have), reflect.ValueOf(want)
	if h.Type() != w.Type() || h.Kind() != reflect.Struct {
		return nil
	}
	var list []string
	for i := range w.NumField() {
		a, b := h.Field(i).Interface(), w.Field(i).Interface()
		if a == b {
			continue
		}
		field := w.Type().Field(i)
		fault, isFault := field.Tag.Lookup("fault")
		name := field.Tag.Get("says")
		switch {
		case isFault && field.Type.Kind() == reflect.Bool:
			list = append(list, fault)
		case isFault:
			list = append(list, fault+config.Printable(fmt.Sprint(a)))
		case name == "":
			list = append(list, field.Name+" is "+value(a)+", should be "+value(b))
		case field.Type.Kind() == reflect.String && strings.ContainsRune(fmt.Sprint(a, b), ','):
			list = append(list, name+lists(fmt.Sprint(a), fmt.Sprint(b)))
		default:
			list = append(list, name+" is "+value(a)+", should be "+value(b))
		}
	}
	return list
}

// value returns an attribute's value for a message.
func value(v any) string {
	s := config.Printable(fmt.Sprint(v))
	if a, ok := v.(netip.Addr); s == "" || ok && !a.IsValid() {
		return "none"
	}
	return s
}

// lists returns the differences between two lists joined by commas.
func lists(have, want string) string {
	h, w := strings.Split(have, ","), strings.Split(want, ",")
	lack := slices.DeleteFunc(slices.Clone(w), func(s string) bool { return slices.Contains(h, s) })
	more := slices.DeleteFunc(slices.Clone(h), func(s string) bool { return s == "" || slices.Contains(w, s) })
	var said []string
	if len(lack) > 0 {
		said = append(said, " lack "+few(lack))
	}
	if len(more) > 0 {
		said = append(said, " have "+few(more)+" too much")
	}
	return strings.Join(said, ",")
}

// few returns the first element and the number of the others.
func few(list []string) string {
	if len(list) == 1 {
		return list[0]
	}
	return fmt.Sprintf("%s and %d more", list[0], len(list)-1)
}

// clip shortens a text to a number of characters.
func clip(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}
