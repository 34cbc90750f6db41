package cni

import (
	"fmt"

	"github.com/containernetworking/cni/pkg/types"

	"ovs-gre-cni/pkg/fault"
)

// Args are the keys of CNI_ARGS that we read.
type Args struct {
	types.CommonArgs
	// MAC and IP are what the container shall have; "" leaves it to us.
	MAC types.UnmarshallableString
	IP  types.UnmarshallableString
}

// ParseArgs reads the value of CNI_ARGS. Keys of other plugins are no error. The
// error wraps fault.ErrEnvironment.
func ParseArgs(text string) (Args, error) {
	var args Args
	args.IgnoreUnknown = true
	if err := types.LoadArgs(text, &args); err != nil {
		return Args{}, fmt.Errorf("%w: CNI_ARGS: %w", fault.ErrEnvironment, err)
	}
	return args, nil
}
