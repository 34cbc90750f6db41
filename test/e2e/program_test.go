package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/testnet"
)

// programs are what this test binary is when a test runs it in a container.
var programs = map[string]func(args []string) error{
	"receive": receive,
	"send":    send,
	"frames":  frames,
}

// programEnv names the program in the environment.
const programEnv = "E2E_PROGRAM"

func TestMain(m *testing.M) {
	run, ok := programs[os.Getenv(programEnv)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// program is a command that runs one of programs at a place.
func program(ctx context.Context, at testnet.Runner, name string, args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := at.Command(ctx, exe, args...)
	cmd.Env = append(os.Environ(), programEnv+"="+name)
	return cmd
}

// receive ADDRESS takes one connection and prints the checksum of what comes.
func receive(args []string) error {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	c, err := l.Accept()
	if err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, c); err != nil {
		return err
	}
	fmt.Println(hex.EncodeToString(sum.Sum(nil)))
	return c.Close()
}

// send ADDRESS BYTES connects, sends, and prints the checksum of what it sent.
func send(args []string) error {
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	c, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i ^ i>>8 ^ i>>16)
	}
	if _, err := c.Write(data); err != nil {
		return err
	}
	fmt.Println(hex.EncodeToString(sum(data)))
	return c.Close()
}

func sum(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

// frames LINK HEX... sends frames as they are.
func frames(args []string) error {
	link, err := net.InterfaceByName(args[0])
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	for _, arg := range args[1:] {
		b, err := hex.DecodeString(arg)
		if err != nil {
			return err
		}
		if err := unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil {
			return err
		}
	}
	return unix.Close(fd)
}
