package faults

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// traceEnv has the plan of a tracer, for the test binary is its own: it counts
// over all threads of a Go program, which moves from one to another as it
// likes; strace's inject counts each thread's calls for themselves.
const traceEnv = "OVSGRE_FAULTS_TRACE"

// A plan says what to do to a program.
type plan struct {
	// At is the call to hit, the first being 1; 0 is none.
	At int
	// Errno, by the name of the call, is what it then fails with, without being
	// made; nil kills the program before it makes the call.
	Errno map[string]syscall.Errno
	// From: not this call alone, but all from here on.
	From bool
	// Only are the calls that count, by name; nil is all. Of "read", only the
	// first for each request counts: a program that is killed there has sent
	// the request and dies before it gets the reply.
	Only []string
	// Gets: requests that change nothing count as well.
	Gets bool
	// Out is the file for the story.
	Out string
}

// A story is what a tracer saw: the calls that count, and whether one was hit.
type story struct {
	Calls []string
	Hit   bool
}

// traceMain runs a program under a plan and exits as the program does.
func traceMain(raw string, argv []string) int {
	var p plan
	if err := json.Unmarshal([]byte(raw), &p); err != nil {
		fmt.Fprintln(os.Stderr, "trace:", err)
		return 125
	}
	s, code, err := trace(p, argv)
	if err == nil {
		var out []byte
		if out, err = json.Marshal(s); err == nil {
			err = os.WriteFile(p.Out, out, 0o600)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "trace:", err)
		return 125
	}
	return code
}

// syscallInfo is struct ptrace_syscall_info of linux/ptrace.h at a call's entry.
type syscallInfo struct {
	Op     uint8
	_      [3]uint8
	Arch   uint32
	IP, SP uint64
	Nr     uint64
	Args   [6]uint64
	_      uint64
}

const infoEntry, infoExit = 1, 2

func trace(p plan, argv []string) (s story, code int, err error) {
	runtime.LockOSThread()
	_ = os.Unsetenv(traceEnv)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return s, 0, err
	}
	pid := cmd.Process.Pid
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &ws, unix.WALL, nil); err != nil {
		return s, 0, err
	}
	// Children are left alone: only threads of the program count.
	if err := syscall.PtraceSetOptions(pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL); err != nil {
		return s, 0, err
	}
	known, failing := map[int]bool{pid: true}, map[int]syscall.Errno{}
	again := map[int]bool{}
	if err := syscall.PtraceSyscall(pid, 0); err != nil {
		return s, 0, err
	}
	for {
		tid, err := syscall.Wait4(-1, &ws, unix.WALL, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return s, 0, err
		}
		if ws.Exited() || ws.Signaled() {
			if tid != pid {
				continue
			}
			if ws.Signaled() {
				return s, 128 + int(ws.Signal()), nil
			}
			return s, ws.ExitStatus(), nil
		}
		sig := 0
		switch st := ws.StopSignal(); {
		case st == syscall.SIGTRAP|0x80:
			if err := at(&p, &s, pid, tid, failing, again); err != nil {
				return s, 0, err
			}
		case st == syscall.SIGTRAP && ws.TrapCause() > 0: // a new thread
		case st == syscall.SIGSTOP && !known[tid]: // the new thread's first stop
			known[tid] = true
		default:
			sig = int(st)
		}
		// ESRCH: it died meanwhile, which the next wait tells.
		if err := syscall.PtraceSyscall(tid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return s, 0, err
		}
	}
}

// at looks at a thread that enters or leaves a system call.
func at(p *plan, s *story, pid, tid int, failing map[int]syscall.Errno, again map[int]bool) error {
	var info syscallInfo
	if _, _, e := syscall.RawSyscall6(syscall.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0); e != 0 {
		if e == syscall.ESRCH {
			return nil
		}
		return fmt.Errorf("PTRACE_GET_SYSCALL_INFO: %w", e)
	}
	if errno := failing[tid]; info.Op == infoExit && errno != 0 {
		delete(failing, tid)
		return setResult(tid, errno)
	}
	if info.Op == infoExit {
		// The kernel makes the call again (ERESTARTNOINTR and the like).
		if r := int64(info.Nr); r <= -512 && r >= -516 {
			again[tid] = true
		}
		return nil
	}
	if again[tid] {
		delete(again, tid)
		return nil
	}
	name, what, get := classify(pid, info.Nr, info.Args)
	if name == "" || (get && !p.Gets) || (p.Only != nil && !slices.Contains(p.Only, name)) {
		return nil
	}
	if n := len(s.Calls); name == "read" && (n == 0 || strings.HasPrefix(s.Calls[n-1], "read")) {
		return nil
	}
	s.Calls = append(s.Calls, strings.TrimSpace(name+" "+what))
	if n := len(s.Calls); p.At == 0 || n < p.At || (n > p.At && !p.From) {
		return nil
	}
	s.Hit = true
	if p.Errno == nil {
		return syscall.Kill(pid, syscall.SIGKILL)
	}
	failing[tid] = p.Errno[name]
	return skipCall(tid)
}

// classify names a call that changes something outside of the program or waits
// for a reply, and says whether it is a request that only asks; "" is any other.
func classify(pid int, nr uint64, args [6]uint64) (name, what string, get bool) {
	switch nr {
	case unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV:
		name = "write"
	case unix.SYS_SENDTO:
		name = "sendto"
	case unix.SYS_SENDMSG, unix.SYS_SENDMMSG:
		name = "sendmsg"
	case unix.SYS_READ, unix.SYS_RECVFROM, unix.SYS_RECVMSG:
		if strings.HasPrefix(fd(pid, args[0]), "socket:") {
			return "read", "reply", false
		}
		return "", "", false
	case unix.SYS_OPENAT:
		if args[2]&(unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY|unix.O_RDWR) == 0 {
			return "", "", false
		}
		return "openat", text(pid, args[1]), false
	case unix.SYS_MKDIRAT:
		return "mkdirat", text(pid, args[1]), false
	case unix.SYS_UNLINKAT:
		return "unlinkat", text(pid, args[1]), false
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		return "renameat", text(pid, args[3]), false
	case unix.SYS_LINKAT, unix.SYS_SYMLINKAT:
		return "linkat", "", false
	case unix.SYS_FLOCK:
		return "flock", fd(pid, args[0]), false
	case unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE:
		return "ftruncate", fd(pid, args[0]), false
	case unix.SYS_FSYNC, unix.SYS_FDATASYNC:
		return "fsync", fd(pid, args[0]), false
	case unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHOWNAT:
		return "fchmod", "", false
	case unix.SYS_SETNS:
		return "setns", fd(pid, args[0]), false
	case unix.SYS_SOCKET:
		return "socket", "", true
	case unix.SYS_BIND:
		return "bind", "", true
	case unix.SYS_CONNECT:
		return "connect", "", false
	case unix.SYS_IOCTL:
		if !strings.HasPrefix(fd(pid, args[0]), "socket:") {
			return "", "", false
		}
		return "ioctl", fmt.Sprintf("%#x", args[1]), args[1] == unix.SIOCGIFINDEX
	default:
		return "", "", false
	}
	file := fd(pid, args[0])
	if strings.HasPrefix(file, "anon_inode:") || args[0] == 2 {
		return "", "", false // the program's own, or its log
	}
	if name == "write" && !strings.HasPrefix(file, "socket:") {
		return name, file, false
	}
	what, get = request(pid, name == "sendmsg", nr == unix.SYS_WRITEV, args)
	return name, what, get
}

// request says what is sent by the beginning of it: a netlink header, or JSON.
func request(pid int, msg, iov bool, args [6]uint64) (what string, get bool) {
	base := args[1]
	if msg {
		base = word(pid, base+16) // msg_iov
	}
	if msg || iov {
		base = word(pid, base) // iov_base
	}
	head := peek(pid, base, 1<<16)
	if len(head) > 0 && head[0] == '{' {
		if !iov && !msg && uint64(len(head)) > args[2] {
			head = head[:args[2]]
		}
		for _, op := range []string{"insert", "mutate", "update", "delete"} {
			if bytes.Contains(head, []byte(`"op":"`+op+`"`)) {
				return "ovsdb change", false
			}
		}
		return "ovsdb question", true
	}
	if len(head) < 6 {
		return "", false
	}
	typ := binary.NativeEndian.Uint16(head[4:])
	switch {
	case typ >= unix.RTM_BASE && typ < 0x100:
		get = typ&3 == 2 // RTM_GET…
	case typ>>8 == unix.NFNL_SUBSYS_NFTABLES:
		get = true // changes come in batches
	}
	return fmt.Sprintf("netlink %#x", typ), get
}

func fd(pid int, n uint64) string {
	s, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/fd/" + strconv.FormatUint(n, 10))
	return s
}

func peek(pid int, addr uint64, n int) []byte {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/mem")
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, n)
	n, _ = f.ReadAt(b, int64(addr))
	return b[:n]
}

func word(pid int, addr uint64) uint64 {
	b := peek(pid, addr, 8)
	if len(b) < 8 {
		return 0
	}
	return binary.NativeEndian.Uint64(b)
}

func text(pid int, addr uint64) string {
	b := peek(pid, addr, 128)
	if i := slices.Index(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
