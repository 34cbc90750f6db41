package conflist

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// bootTime returns when the machine booted (btime in /proc/stat, proc(5)), which a
// container's process namespace does not change.
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
