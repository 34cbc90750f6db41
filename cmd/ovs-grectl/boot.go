package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ticks is USER_HZ, the unit of times in /proc/PID/stat: 100 on every
// architecture that Go runs on.
const ticks = 100

// booted is when this boot began: when process 1 was started (proc(5), field
// 22 of /proc/PID/stat, counted from the kernel's own start).
func booted() (time.Time, error) {
	stat, err := os.ReadFile("/proc/1/stat")
	if err != nil {
		return time.Time{}, err
	}
	// The name, in parentheses, may hold anything; the third field follows it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return time.Time{}, fmt.Errorf("/proc/1/stat: %d fields", len(fields))
	}
	start, err := strconv.ParseInt(string(fields[19]), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("/proc/1/stat: %w", err)
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}, err
	}
	return time.Now().Add(-time.Duration(up.Nano())).Add(time.Duration(start) * time.Second / ticks), nil
}
