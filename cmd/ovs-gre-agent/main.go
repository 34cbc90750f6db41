// Command ovs-gre-agent keeps a network's list of hosts and this host's state:
// the hosts are a Kubernetes cluster's Nodes, or what a file says.
package main

import (
	"fmt"
	"os"

	_ "github.com/prometheus/client_golang/prometheus"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "k8s.io/api/core/v1"
	_ "k8s.io/client-go/informers"
	_ "k8s.io/client-go/kubernetes"
	_ "k8s.io/client-go/rest"
	_ "k8s.io/client-go/tools/cache"
	_ "k8s.io/client-go/tools/clientcmd"
)

// release is set by the linker.
var release = "devel"

func main() { fmt.Fprintln(os.Stdout, "ovs-gre-agent", release) }
