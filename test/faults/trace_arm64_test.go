package faults

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ntSystemCall is NT_ARM_SYSTEM_CALL of linux/elf.h: the number of the call.
const ntSystemCall = 0x404

// skipCall lets the thread, at the entry of a system call, not make it.
func skipCall(tid int) error {
	none := int32(-1)
	iov := unix.Iovec{Base: (*byte)(unsafe.Pointer(&none)), Len: 4}
	if _, _, e := syscall.RawSyscall6(syscall.SYS_PTRACE, unix.PTRACE_SETREGSET, uintptr(tid), ntSystemCall, uintptr(unsafe.Pointer(&iov)), 0, 0); e != 0 {
		return e
	}
	return nil
}

// setResult lets the system call that the thread leaves have failed.
func setResult(tid int, e syscall.Errno) error {
	var r syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(tid, &r); err != nil {
		return err
	}
	r.Regs[0] = uint64(-int64(e))
	return syscall.PtraceSetRegs(tid, &r)
}
