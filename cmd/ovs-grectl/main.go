// Command ovs-grectl is the operator's tool: it makes, removes, shows and
// explains what the CNI plugins ovs-gre and route-sync need of a host, without
// any container and without a runtime.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// release is set by the linker.
var release = "devel"

// What a call ends with.
const (
	exitFine   = 0 // all is as it should be
	exitDrift  = 1 // drift, failed checks, a refusal
	exitUnable = 2 // could not look, could not do; wrong usage
)

const usage = `usage: ovs-grectl COMMAND [--output json] [FILE...]

  up [FILE]              make the host state of the network and keep it
  down [--force] [FILE]  remove it; refused while containers are attached
  status [FILE]          show it, and what is not as it should be
  plan [FILE]            print the commands that make it, a shell script
  key [--next] [FILE]    print this host's line for nodes, with its public key for
                         WireGuard; --next: with the key that is to take its place
  doctor [FILE]          check the host's surroundings; say what mends what is wrong
  gc [FILE]              remove what is left of containers that are gone
  version                print the version

FILE is a CNI conflist; without one, every conflist in /etc/cni/net.d that
names ovs-gre or route-sync. Exit status: 0 as it should be, 1 drift or failed
checks, 2 could not look.
`

// A call is one command with its arguments.
type call struct {
	out, err io.Writer
	files    []string
	json     bool
	force    bool
	next     bool
}

var commands = map[string]func(context.Context, *call) int{
	"up": up, "down": down, "status": status, "plan": plan, "doctor": examine, "gc": gc, "key": key, "version": version,
}

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if os.Getenv("CNI_PATH") == "" {
		// An IPAM plugin that gc delegates to is looked for there.
		_ = os.Setenv("CNI_PATH", "/opt/cni/bin")
	}
	args := os.Args[1:]
	if len(args) == 1 && slices.Contains([]string{"-h", "--help", "help"}, args[0]) {
		fmt.Print(usage)
		return exitFine
	}
	c := &call{out: os.Stdout, err: os.Stderr}
	command, err := c.parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "ovs-grectl: %v\n%s", err, usage)
		return exitUnable
	}
	return command(ctx, c)
}

// parse reads the arguments; options may stand anywhere.
func (c *call) parse(args []string) (func(context.Context, *call) int, error) {
	var name string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		opt, value, given := strings.Cut(arg, "=")
		switch {
		case arg == "--":
			c.files = append(c.files, args...)
			args = nil
		case opt == "--output" || opt == "-o":
			if !given {
				if len(args) == 0 {
					return nil, errors.New("--output: want json or text")
				}
				value, args = args[0], args[1:]
			}
			if value != "json" && value != "text" {
				return nil, fmt.Errorf("--output %s: want json or text", value)
			}
			c.json = value == "json"
		case arg == "--force" || arg == "-f":
			c.force = true
		case arg == "--next":
			c.next = true
		case strings.HasPrefix(arg, "-") && arg != "-":
			return nil, fmt.Errorf("unknown option %s", arg)
		case name == "":
			name = arg
		default:
			c.files = append(c.files, arg)
		}
	}
	command := commands[name]
	switch {
	case name == "":
		return nil, errors.New("no command")
	case command == nil:
		return nil, fmt.Errorf("unknown command %q", name)
	case c.force && name != "down":
		return nil, errors.New("--force is for down alone")
	case c.next && name != "key":
		return nil, errors.New("--next is for key alone")
	case name == "version" && len(c.files) > 0:
		return nil, errors.New("version takes no file")
	}
	return command, nil
}

func version(_ context.Context, c *call) int {
	if c.json {
		return c.print(map[string]string{"version": release})
	}
	fmt.Fprintln(c.out, "ovs-grectl", release)
	return exitFine
}
