package conflist

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// bootTime is when this boot began, by the kernel (btime in /proc/stat, proc(5)).
// It is the machine's in a container's process namespace too.
func bootTime() (time.Time, error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(raw)) {
		if text, ok := strings.CutPrefix(line, "btime "); ok {
			seconds, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			return time.Unix(seconds, 0), err
		}
	}
	return time.Time{}, fmt.Errorf("/proc/stat: no btime")
}
