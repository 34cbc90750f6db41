package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/doctor"
	"ovs-gre-cni/pkg/trace"
)

// A call is one command with its arguments.
type call struct {
	out, err io.Writer
	files    []string
	json     bool
	force    bool
	next     bool
	all      bool
	verbose  bool
	// outTerm and errTerm tell whether out and err are terminals.
	outTerm, errTerm bool
	progress         *progress
	code             int
}

// A command is a command of ovs-grectl. Its texts are used for the help, the manual page and
// docs/ovs-grectl.md.
type command struct {
	name, args, short, long, example string
	run                              func(context.Context, *call) int
	// result is a value of the type that --output json prints; nil is none.
	result any
	// verbose is what --verbose adds; "" is nothing.
	verbose string
	// options are those that it has beside --verbose and --output.
	options []option
	// takes checks the arguments; nil is any number of files.
	takes cobra.PositionalArgs
	// names returns completions of the first argument; nil completes files.
	names func(prefix string) []string
}

// An option is a switch of one command.
type option struct {
	name, short, text string
	to                func(*call) *bool
}

const about = `ovs-grectl makes, shows and removes what ovs-gre and route-sync keep on this host, and says what is
wrong on the way of a packet.

FILE is a CNI conflist; without one, every conflist in ` + conflist.ConfDir + ` that names ovs-gre or route-sync.

Exit status: 0 as it should be, 1 drift, failed checks or a refusal, 2 could not look, or wrong usage.`

// commands are all commands, in the order of the help.
var commands = []command{
	{name: "up", args: "[FILE...]", run: up, result: []change{}, short: "make the host state of the network and keep it",
		long: `Makes bridges, tunnels, addresses, neighbours, routes and accepts without any container, and marks the network so that
no container that leaves takes them along. Containers that have lost their ports get them back. Where nothing is amiss
it changes nothing. It prints what it does: + made, ~ changed, - removed.`,
		example: "ovs-grectl up\novs-grectl up /etc/cni/net.d/10-ovsnet.conflist"},
	{name: "down", args: "[--force] [FILE...]", run: down, result: []change{}, short: "remove it; refused while containers are attached",
		options: []option{{"force", "f", "remove the host state although containers are attached", func(c *call) *bool { return &c.force }}},
		long: `Removes what up or the first container has made, and nothing else. While containers are attached it does nothing, unless
forced.`,
		example: "ovs-grectl down\novs-grectl down --force /etc/cni/net.d/10-ovsnet.conflist"},
	{name: "status", args: "[FILE...]", run: status, result: []report{}, short: "show it, and what is not as it should be",
		verbose: "every tunnel, route and container, and the command behind each drift",
		long: `Shows bridges, tunnels, routes and containers, and what is not as the conflist says (DRIFT). What is as it should be is
counted where there is much of it.`,
		example: "ovs-grectl status\novs-grectl status -o json | jq -r '.[].drift[]'"},
	{name: "doctor", args: "[FILE...]", run: examine, result: []doctor.Finding{},
		short:   "check the host's surroundings; say what mends what is wrong",
		verbose: "also what is fine",
		long: `Looks at what surrounds the networks: daemons, kernel, packet filter, underlay, peers, containers, other people's
configuration. Each finding has the command that mends it. It changes nothing and takes less than ten seconds.`,
		example: "ovs-grectl doctor\novs-grectl doctor -v\novs-grectl doctor -o json | jq '.[] | select(.level != \"ok\")'"},
	{name: "ping", args: "[--all] [ADDRESS...] [FILE...]", run: pingPeers, result: []row{}, short: "measure this host's ways to its peers",
		verbose: "every peer, not only those that are not fine",
		options: []option{{"all", "a", "also what the peers' agents have measured: the whole square", func(c *call) *bool { return &c.all }}},
		long: `Measures loss, round trip and path MTU to every peer at once, on the underlay and through the tunnel, by ICMP. It takes
less than three seconds, with 500 peers, too. With more than 30 peers it lists those to which something is lost or too
small. With --all it asks the peers' agents, where they run, for the loss and the round trip that each has measured through its
own tunnels of late, and says of which peers no agent answers. Nobody measures anything for being asked. With addresses, of
hosts or of their containers, it measures these peers alone; where nodes is no list, it has to be told them.`,
		example: "ovs-grectl ping\novs-grectl ping --all\novs-grectl ping 172.16.32.101\n" +
			"ovs-grectl ping -o json | jq '.[].peers[] | select(.tunnel.received == 0) | .peer'"},
	{name: "trace", args: "CONTAINER DESTINATION [PROTO [PORT]]", run: traceCall, result: trace.Trace{},
		short: "follow a packet, and name what stops it",
		takes: cobra.RangeArgs(2, 4), names: containerNames,
		long: `Says what becomes of a packet on this host, step by step: the container's route, Open vSwitch, the host's route, the
packet filter, the neighbour, the tunnel. It ends with "arrives" or with the step that stops the packet and the command
that mends it. CONTAINER is the container's ID or the beginning of it, its port's name, or its address; DESTINATION is
an address; PROTO is icmp (the default), tcp, udp or a number. Where the packet goes on to a peer, trace names the
command to run there: the same one, with addresses. A packet whose CONTAINER is a peer's address is followed from where
it comes into this host. It sends echo requests, and with a TCP port it opens one connection, which it closes at once;
nothing else of it is to be noticed.`,
		example: "ovs-grectl trace 3f4e5a 192.168.2.2\novs-grectl trace 192.168.1.2 192.168.2.2 tcp 80"},
	{name: "plan", args: "[FILE...]", run: plan, result: []planned{}, short: "print the commands that make it, a shell script",
		long:    `Prints what a person would type on a bare host to get what up makes. It asks no Open vSwitch.`,
		example: "ovs-grectl plan >ovsnet.sh\novs-grectl plan conflist/gre.conflist"},
	{name: "key", args: "[--next] [FILE...]", run: key, result: []keyed{},
		short:   "print this host's line for nodes, with its public key for WireGuard",
		options: []option{{"next", "", "print the key that is to take the place of this one", func(c *call) *bool { return &c.next }}},
		long: `Prints this host's entry of nodes with its public key, for networks whose tunnel.type is wireguard. The private key is
made if there is none, and stays where it is. With --next it prints the key that is to take this one's place: it does once
nodes names it.`,
		example: "ovs-grectl key\novs-grectl key --next /etc/cni/net.d/10-ovsnet.conflist"},
	{name: "validate", args: "FILE...", run: validate, result: []validation{}, short: "check a conflist, on any machine",
		takes: cobra.MinimumNArgs(1),
		long: `Checks files as the plugins would: every key, the nodes, and what of these excludes each other, all problems at once. It
looks at nothing of the host, and needs neither root nor Open vSwitch. A file of the key nodesFile is read where it is
there.`,
		example: "ovs-grectl validate conflist/gre.conflist\nfind . -name '*.conflist' | xargs ovs-grectl validate"},
	{name: "gc", args: "[FILE...]", run: gc, result: []change{}, short: "remove what is left of containers that are gone",
		long: `Does GC for runtimes that never call it: attachments whose veth pair is gone lose their port, their lease and their
address.`,
		example: "ovs-grectl gc"},
	{name: "picture", args: "[FILE]", run: picture, short: "measure the way to every peer, and draw the mesh as SVG",
		long: `Measures loss and round trip to every peer for a second and prints the mesh as an SVG picture: a graph of a few hosts, a
matrix of many. It draws one network: where the host has more, name its conflist.`,
		example: "ovs-grectl picture >mesh.svg"},
	{name: "version", run: version, result: versionReply{}, short: "print the version",
		takes: cobra.NoArgs,
		long:  `Prints the version.`, example: "ovs-grectl version"},
}

func newCall(out, err io.Writer) *call {
	c := &call{out: out, err: err, outTerm: isTerminal(out), errTerm: isTerminal(err)}
	c.progress = &progress{w: err, on: c.errTerm}
	return c
}

// run runs one call, and returns the exit status.
func (c *call) run(ctx context.Context, args []string) int {
	root := c.root()
	root.SetArgs(args)
	at, err := root.ExecuteContextC(ctx)
	c.progress.end()
	switch {
	case err == nil:
		return c.code
	case at == root && len(args) == 0:
		fmt.Fprintf(c.err, "ovs-grectl: %v\n%s", wording(err), root.UsageString())
	case at == root:
		fmt.Fprintf(c.err, "ovs-grectl: %v\n\"ovs-grectl --help\" lists the commands\n", wording(err))
	default:
		fmt.Fprintf(c.err, "ovs-grectl: %s: %v\nusage: %s\n\"%s --help\" says more\n", at.Name(), wording(err), at.UseLine(), at.CommandPath())
	}
	return exitUnable
}

// wording is cobra's error with the terms of this program.
func wording(err error) error {
	s := err.Error()
	for _, r := range [][2]string{{"unknown flag: ", "unknown option "}, {"unknown shorthand flag: ", "unknown option "},
		{"flag needs an argument: --output", "--output: want json or text"},
		{"flag needs an argument: 'o' in -o", "--output: want json or text"}, {"flag: want json or text", "want json or text"},
		{"invalid argument ", "--output "}, {" for \"-o, --output\" ", ": "}} {
		s = strings.Replace(s, r[0], r[1], 1)
	}
	s, _, _ = strings.Cut(s, " for \"ovs-grectl\"")
	return errors.New(s)
}

// unknown is the error of a command that there is not.
func unknown(root *cobra.Command, name string) error {
	if like := root.SuggestionsFor(name); len(like) > 0 {
		return fmt.Errorf("unknown command %q: did you mean %s?", name, strings.Join(like, " or "))
	}
	return fmt.Errorf("unknown command %q", name)
}

// output is the value of --output.
type output struct{ json *bool }

func (o output) Type() string { return "json|text" }

func (o output) String() string {
	if o.json != nil && *o.json {
		return "json"
	}
	return "text"
}

func (o output) Set(s string) error {
	if s != "json" && s != "text" {
		return errors.New("want json or text")
	}
	*o.json = s == "json"
	return nil
}

// root is the tree of commands.
func (c *call) root() *cobra.Command {
	root := &cobra.Command{
		Use: "ovs-grectl", Short: "make, show and remove the host state of ovs-gre's networks", Long: about,
		SilenceErrors: true, SilenceUsage: true,
	}
	asked := root.Flags().Bool("version", false, "print the version")
	root.Args = func(_ *cobra.Command, args []string) error {
		switch {
		case *asked:
			return nil
		case len(args) == 0:
			return errors.New("no command")
		}
		return unknown(root, args[0])
	}
	root.Run = func(*cobra.Command, []string) { fmt.Fprintln(c.out, "ovs-grectl", release) }
	cobra.EnableCommandSorting = false
	root.SuggestionsMinimumDistance = 2
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetUsageFunc(usage(root.UsageFunc()))
	help := func(_ *cobra.Command, args []string) error {
		sub, rest, err := root.Find(args)
		if err != nil || len(rest) > 0 {
			return unknown(root, args[0])
		}
		return sub.Help()
	}
	root.SetHelpCommand(&cobra.Command{Use: "help [COMMAND]", Short: "say what a command does", RunE: help})
	root.PersistentFlags().VarP(output{&c.json}, "output", "o", "print JSON or text")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "text"}, cobra.ShellCompDirectiveNoFileComp))
	// The flag is for down only; with other commands RunE returns a clear error.
	root.PersistentFlags().BoolVarP(&c.force, "force", "f", false, "remove the host state although containers are attached")
	_ = root.PersistentFlags().MarkHidden("force")
	for _, cmd := range commands {
		root.AddCommand(c.cobra(cmd))
	}
	root.AddCommand(c.reference(root))
	return root
}

// usage is cobra's usage with a lower-case beginning, as this program's messages have. It is
// not a template: with text/template the linker keeps all methods of all types, 3 MB.
func usage(cobras func(*cobra.Command) error) func(*cobra.Command) error {
	return func(cmd *cobra.Command) error {
		out := cmd.OutOrStderr()
		defer cmd.SetOut(out)
		var b strings.Builder
		cmd.SetOut(&b)
		if err := cobras(cmd); err != nil {
			return err
		}
		_, err := io.WriteString(out, strings.Replace(b.String(), "Usage:", "usage:", 1))
		return err
	}
}

func (c *call) cobra(cmd command) *cobra.Command {
	sub := &cobra.Command{
		Use: strings.TrimSpace(cmd.name + " " + cmd.args), Short: cmd.short, Long: wrap(cmd.long, 100), DisableFlagsInUseLine: true,
		Example: "  " + strings.ReplaceAll(cmd.example, "\n", "\n  "),
		RunE: func(sub *cobra.Command, args []string) error {
			if c.force && cmd.name != "down" {
				return errors.New("--force is for down alone")
			}
			if c.json && cmd.result == nil {
				return fmt.Errorf("%s has no --output json", cmd.name)
			}
			c.files = args
			c.code = cmd.run(sub.Context(), c)
			return nil
		},
	}
	sub.Args = func(_ *cobra.Command, args []string) error {
		if cmd.takes != nil && cmd.takes(sub, args) != nil {
			return fmt.Errorf("it takes %s", cmp.Or(cmd.args, "no file"))
		}
		return nil
	}
	if cmd.verbose != "" {
		sub.Flags().BoolVarP(&c.verbose, "verbose", "v", false, "print "+cmd.verbose)
	}
	for _, o := range cmd.options {
		sub.Flags().BoolVarP(o.to(c), o.name, o.short, false, o.text)
	}
	if cmd.names != nil {
		sub.ValidArgsFunction = func(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return cmd.names(prefix), cobra.ShellCompDirectiveNoFileComp
		}
	}
	return sub
}

// wrap breaks a text into lines of at most width characters.
func wrap(text string, width int) string {
	var b strings.Builder
	n := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case n == 0:
		case n+1+len(word) > width:
			b.WriteByte('\n')
			n = 0
		default:
			b.WriteByte(' ')
			n++
		}
		b.WriteString(word)
		n += len(word)
	}
	return b.String()
}

// versionReply is what version prints as JSON.
type versionReply struct {
	Version string `json:"version"`
}

func version(_ context.Context, c *call) int {
	if c.json {
		return c.print(versionReply{release})
	}
	fmt.Fprintln(c.out, "ovs-grectl", release)
	return exitFine
}

// print prints a value as JSON.
func (c *call) print(v any) int {
	enc := json.NewEncoder(c.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return c.fail(err)
	}
	return exitFine
}
