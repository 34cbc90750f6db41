package agent

import (
	"errors"
	"os"

	"ovs-gre-cni/pkg/atomicfile"
)

// replaceFile writes a file. It first removes what a killed call has left: nobody
// but one agent writes it.
func replaceFile(path string, content []byte, mode os.FileMode) error {
	return errors.Join(atomicfile.RemoveLeftovers(path), atomicfile.WriteDurable(path, content, mode))
}
