package cnitest

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
	"time"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/testnet"
)

// programs are what a test binary is when a test runs it at a place.
var programs = map[string]func(args []string) error{
	"receive": receive,
	"send":    send,
	"frames":  frames,
	"repeat":  repeat,
	"sink":    sink,
}

// programEnv names the program in the environment.
const programEnv = "CNITEST_PROGRAM"

// Main is the TestMain of a suite that uses Program.
func Main(m *testing.M) {
	run, ok := programs[os.Getenv(programEnv)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Program is a command that runs one of the programs at a place:
//
//	receive ADDRESS               takes one connection and prints the checksum of what comes
//	send ADDRESS BYTES            connects, sends, and prints the checksum of what it sent
//	frames LINK HEX...            sends frames as they are, one after the other
//	repeat LINK DURATION HEX...   does so again and again, with a pause after each frame
//	sink ADDRESS                  takes datagrams and answers none
func Program(ctx context.Context, at testnet.Runner, name string, args ...string) *exec.Cmd {
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
func frames(args []string) error { return sendFrames(args[0], args[1:], 0, false) }

// repeat LINK DURATION HEX... sends frames until it is killed.
func repeat(args []string) error {
	pause, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	fmt.Println("sending")
	return sendFrames(args[0], args[2:], pause, true)
}

func sendFrames(name string, frames []string, pause time.Duration, again bool) error {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	for {
		for _, f := range frames {
			b, err := hex.DecodeString(f)
			if err != nil {
				return err
			}
			if err := unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil {
				return err
			}
			time.Sleep(pause) //nolint:forbidigo // the sender's own pace
		}
		if !again {
			return unix.Close(fd)
		}
	}
}

// sink ADDRESS takes datagrams until it is killed.
func sink(args []string) error {
	c, err := net.ListenPacket("udp", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for b := make([]byte, 2000); ; {
		if _, _, err := c.ReadFrom(b); err != nil {
			return err
		}
	}
}
