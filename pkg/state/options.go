package state

import (
	"fmt"
	"strings"

	"ovs-gre-cni/pkg/config"
)

// tunnelOptions returns Tunnel.Options and Tunnel.Secrets of a configuration.
func tunnelOptions(c *config.Network) (options, secrets string) {
	var plain, files []string
	for _, o := range c.Tunnel.Options {
		if o.File != "" {
			files = append(files, o.Name+" "+o.File)
			continue
		}
		plain = append(plain, o.Name+"="+o.Value)
	}
	return strings.Join(plain, "\n"), strings.Join(files, "\n")
}

// An OptionLine is a line of Tunnel.Options, with the option's value, or of
// Tunnel.Secrets, with the path of its file. Value is "" where there is a name alone.
type OptionLine struct{ Name, Value string }

// OptionLines returns the lines of Tunnel.Options or Tunnel.Secrets.
func OptionLines(lines string) []OptionLine {
	if lines == "" {
		return nil
	}
	var list []OptionLine
	for _, line := range strings.Split(lines, "\n") {
		if i := strings.IndexAny(line, "= "); i >= 0 { // no option's name has either
			list = append(list, OptionLine{line[:i], line[i+1:]})
		} else {
			list = append(list, OptionLine{Name: line})
		}
	}
	return list
}

// HasOption reports whether Tunnel.Options or Tunnel.Secrets have an option.
func HasOption(lines, option string) bool {
	for _, l := range OptionLines(lines) {
		if l.Name == option {
			return true
		}
	}
	return false
}

// writeOptions writes what ovs-vsctl needs of the further options. A secret is
// named by the file that has it.
func (t Tunnel) writeOptions(b *strings.Builder) {
	for _, o := range OptionLines(t.Options) {
		if o.Value != "" {
			fmt.Fprintf(b, " options:%s=%s", o.Name, ovsString(o.Value))
		}
	}
	for _, o := range OptionLines(t.Secrets) {
		fmt.Fprintf(b, ` options:%s='"'"$(cat %s)"'"'`, o.Name, shellString(o.Value))
	}
}

// shellString quotes a text for the shell.
func shellString(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
