package kernel

import (
	"context"
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestQueryRepeats: a list that changed while it was read is read again, but
// not for ever, and is never taken for whole.
func TestQueryRepeats(t *testing.T) {
	for interrupted, want := range map[int]error{0: nil, 2: nil, dumpTries - 1: nil, dumpTries: unix.EINTR} {
		read := 0
		list, err := withConn(func(c *conn) ([]int, error) {
			return query(context.Background(), c, func(*netlink.Handle) ([]int, error) {
				if read++; read <= interrupted {
					return []int{1}, netlink.ErrDumpInterrupted
				}
				return []int{1, 2}, nil
			})
		})
		if !errors.Is(err, want) || (err == nil) != (len(list) == 2) {
			t.Errorf("interrupted %d times: %v, %v; want %v", interrupted, list, err, want)
		}
	}
}
