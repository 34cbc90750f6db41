package ovs

import (
	"os"
	"strings"
	"sync"

	"ovs-gre-cni/pkg/kernel"
)

// BootID is the kernel's random number of this boot (random(4)), or "" where
// there is none. A port of another boot has lost its link.
var BootID = sync.OnceValue(func() string {
	b, err := os.ReadFile(kernel.ProcSys + "/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
})
