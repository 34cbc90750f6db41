package faults

import "syscall"

// skipCall lets the thread, at the entry of a system call, not make it.
func skipCall(tid int) error {
	var r syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	r.Orig_rax = ^uint64(0)
	return syscall.PtraceSetRegs(tid, &r)
}

// setResult lets the system call that the thread leaves have failed.
func setResult(tid int, e syscall.Errno) error {
	var r syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	r.Rax = uint64(-int64(e))
	return syscall.PtraceSetRegs(tid, &r)
}
