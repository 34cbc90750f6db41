package state

import (
	"fmt"
	"iter"
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

// OptionLines yields the name and the value of each line of Tunnel.Options, or the
// name and the path of each line of Tunnel.Secrets. The value is "" where there is
// the name alone.
func OptionLines(lines string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for line := range strings.SplitSeq(lines, "\n") {
			// No option's name has either of them.
			end := strings.IndexAny(line, "= ")
			if end < 0 {
				end = len(line)
			}
			if line != "" && !yield(line[:end], line[min(end+1, len(line)):]) {
				return
			}
		}
	}
}

// HasOption reports whether Tunnel.Options or Tunnel.Secrets have an option.
func HasOption(lines, option string) bool {
	for name := range OptionLines(lines) {
		if name == option {
			return true
		}
	}
	return false
}

// writeOptions writes what ovs-vsctl needs of the further options. A secret is
// named by the file that has it.
func (t Tunnel) writeOptions(b *strings.Builder) {
	for name, value := range OptionLines(t.Options) {
		if value != "" {
			fmt.Fprintf(b, " options:%s=%s", name, ovsString(value))
		}
	}
	for name, path := range OptionLines(t.Secrets) {
		fmt.Fprintf(b, ` options:%s='"'"$(cat %s)"'"'`, name, shellString(path))
	}
}

// shellString quotes a text for the shell.
func shellString(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
