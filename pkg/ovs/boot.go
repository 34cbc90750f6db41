package ovs

import (
	"os"
	"strings"
	"sync"

	"ovs-gre-cni/pkg/kernel"
)

// BootID is the kernel's random id of this boot (random(4)); "" if there is none. A
// port that was made in another boot has lost its link.
var BootID = sync.OnceValue(func() string {
	b, err := os.ReadFile(kernel.ProcSys + "/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
})
