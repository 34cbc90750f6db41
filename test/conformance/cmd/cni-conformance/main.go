// Command cni-conformance holds a chain of CNI plugins against the
// specification, on a simulated host that is thrown away. It needs root. It
// exits with 1 where a clause fails, with 2 where it could not look.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"ovs-gre-cni/test/cnitest"
	"ovs-gre-cni/test/conformance"
)

func main() { os.Exit(run()) }

func run() int {
	conflist := flag.String("conflist", "", "the chain, a conflist `file`; a host of address 172.16.32.100/24, gateway 172.16.32.2, must be able to use it")
	bin := flag.String("bin", "", "`directory` of the chain's plugins (default: those of this checkout)")
	tools := flag.String("tools", "", "`directory` of cnitool, tuning, portmap and bandwidth (default: those of this checkout)")
	setup := flag.String("setup", "", "shell script `file` that prepares the host")
	versions := flag.String("versions", strings.Join(conformance.Versions, ","), "`list` of versions of the specification")
	only := flag.String("only", "", "`list` of what to try: S, L, P, or ids such as GC or GC-3 (default: all)")
	verbose := flag.Bool("v", false, "tell each clause as it is done")
	flag.Parse()
	if *conflist == "" || flag.NArg() > 0 {
		flag.Usage()
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := try(ctx, *conflist, *bin, *tools, *setup, options(*versions, *only, *verbose))
	if r != nil {
		fmt.Print(r.Text())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cni-conformance:", err)
		return 2
	}
	if _, failed := r.Count(); failed > 0 {
		return 1
	}
	return 0
}

func options(versions, only string, verbose bool) conformance.Options {
	o := conformance.Options{Versions: strings.Split(versions, ",")}
	if only != "" {
		o.Only = strings.Split(only, ",")
	}
	if verbose {
		o.Progress = func(version string, c conformance.Clause, out conformance.Outcome) {
			if out.Tried {
				fmt.Fprintf(os.Stderr, "%s %s %v %v\n", version, c.ID, out.Took.Round(1e6), out.Err)
			}
		}
	}
	return o
}

func try(ctx context.Context, conflist, bin, tools, setup string, o conformance.Options) (*conformance.Report, error) {
	c := conformance.Chain{Bin: bin, Tools: tools}
	var err error
	if c.Conflist, err = os.ReadFile(conflist); err != nil {
		return nil, err
	}
	if setup != "" {
		script, err := os.ReadFile(setup)
		if err != nil {
			return nil, err
		}
		c.Setup = string(script)
	}
	for _, dir := range []*string{&c.Bin, &c.Tools} {
		if *dir == "" {
			if *dir, err = cnitest.Build(); err != nil {
				return nil, err
			}
		}
	}
	return conformance.Run(ctx, c, o)
}
