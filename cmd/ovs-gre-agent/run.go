package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"ovs-gre-cni/pkg/agent"
	"ovs-gre-cni/pkg/agent/kube"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/ovs"
)

// place has the flags for paths.
type place struct{ confDir, confName, store, procsys string }

func (p *place) flags(f *flag.FlagSet) {
	f.StringVar(&p.confDir, "conf-dir", conflist.ConfDir, "the runtime's `directory` of conflists")
	f.StringVar(&p.confName, "conf-name", "10-ovs-gre.conflist", "the conflist's `name` in it")
	f.StringVar(&p.store, "store", "/var/lib/ovs-gre/nodes.json", "the nodes `file` to keep, at the same path for agent and plugins")
	f.StringVar(&p.procsys, "procsys", kernel.ProcSys, "the `directory` where the host's sysctls are")
}

// use sets kernel.ProcSys and returns the path of the conflist. It is an error if there is
// no boot id, which tells ports of a previous boot from others.
func (p *place) use() (conflist string, err error) {
	kernel.ProcSys = p.procsys
	if ovs.BootID() == "" {
		return "", fmt.Errorf("--procsys %s: there is no kernel/random/boot_id", p.procsys)
	}
	return agent.Conflist(p.confDir, p.confName), nil
}

// options are the flags of run.
type options struct {
	place
	node, template, nodesFile, kubeconfig, listen, page string
	resync                                              time.Duration
}

func run(ctx context.Context, log *slog.Logger, args []string) error {
	var o options
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	o.flags(f)
	f.StringVar(&o.node, "node", "", "`name` of this host's node (default $NODE_NAME, else the host's name)")
	f.StringVar(&o.template, "template", "", "the conflist to write: a `file` without nodes, unless that is no list")
	f.StringVar(&o.nodesFile, "nodes-file", "", "take the nodes from a `file` instead of Kubernetes")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "`file` that says how to reach Kubernetes (default: as a pod does)")
	f.StringVar(&o.listen, "listen", ":9178", "`address` of /healthz, /readyz, /metrics and /row; \"\" is off")
	f.StringVar(&o.page, "page", "127.0.0.1:9179", "`address` of the page that shows the mesh and this host; \"\" is off")
	f.DurationVar(&o.resync, "resync", 30*time.Second, "`time` after which all is looked at although nothing happened")
	if err := parse(f, args); err != nil {
		return err
	}
	if filepath.Clean(o.nodesFile) == filepath.Clean(o.store) {
		return fmt.Errorf("--nodes-file and --store are both %s: the agent writes the one from the other", o.store)
	}
	raw, err := os.ReadFile(o.template)
	if err != nil {
		return fmt.Errorf("--template: %w", err)
	}
	conflist, err := o.use()
	if err != nil {
		return err
	}
	ao := agent.Options{Template: raw, Conflist: conflist, Store: o.store, Resync: max(o.resync, time.Second),
		Version: release, PeerPort: peerPort(o.listen), Log: log}
	if err := o.identify(&ao); err != nil {
		return err
	}
	ao.Source, err = o.source(ao.Node, log)
	if errors.Is(err, rest.ErrNotInCluster) && !agent.HasList(raw) {
		ao.Source, err = agent.NoSource{}, nil
	}
	if err != nil {
		return err
	}
	a, err := agent.New(ao)
	if err != nil {
		return err
	}
	unlock, err := agent.LockStore(o.store)
	if err != nil {
		return err
	}
	defer unlock()
	if err := serve(ctx, "--listen", o.listen, a.Handler(), log); err != nil {
		return err
	}
	err = serve(ctx, "--page", o.page, a.PageHandler(), log)
	if errors.Is(err, syscall.EADDRINUSE) {
		log.Warn("the page is not served", "error", err) // the host state matters more than the page
	} else if err != nil {
		return err
	}
	log.Info("running", "version", release, "node", ao.Node, "conflist", ao.Conflist)
	return a.Run(ctx)
}

// identify sets the name of this host's node. With Kubernetes the name is sure. With a file
// of nodes it is sure if a flag or NODE_NAME gives it; otherwise the node is found by its
// address.
func (o *options) identify(ao *agent.Options) error {
	ao.Node = o.node
	if ao.Node == "" {
		ao.Node = os.Getenv("NODE_NAME")
	}
	ao.Sure = ao.Node != "" || o.nodesFile == ""
	var err error
	if ao.Node == "" {
		ao.Node, err = os.Hostname()
	}
	return err
}

func (o *options) source(node string, log *slog.Logger) (agent.Source, error) {
	if o.nodesFile != "" {
		return agent.NodesFile(o.nodesFile), nil
	}
	klog.SetSlogLogger(log)
	config, err := o.cluster()
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	config.UserAgent = "ovs-gre-agent/" + release
	config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	return kube.New(client, node, log)
}

func (o *options) cluster() (*rest.Config, error) {
	if o.kubeconfig != "" {
		return clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	}
	return rest.InClusterConfig()
}

// peerPort is the port at which this agent, and so those of peers, serve their rows; 0 if it
// listens on a loopback address only, or not at all.
func peerPort(listen string) uint16 {
	host, port, err := net.SplitHostPort(listen)
	if a, parsed := netip.ParseAddr(host); err != nil || parsed == nil && a.IsLoopback() || host == "localhost" {
		return 0
	}
	n, _ := strconv.ParseUint(port, 10, 16)
	return uint16(n)
}

// serve serves HTTP at the address of a flag until ctx ends; "" is off.
func serve(ctx context.Context, name, addr string, h http.Handler, log *slog.Logger) error {
	if addr == "" {
		return nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	go func() {
		if err := s.Serve(l); ctx.Err() == nil {
			log.Error("HTTP ended", "error", err)
		}
	}()
	return nil
}
