package e2e

import (
	"context"
	"os/exec"
	"testing"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

func TestMain(m *testing.M) { cnitest.Main(m) }

func program(ctx context.Context, at testnet.Runner, name string, args ...string) *exec.Cmd {
	return cnitest.Program(ctx, at, name, args...)
}
