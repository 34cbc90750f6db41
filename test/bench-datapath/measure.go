package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	iperfPort = "5201"
	echoPort  = "5202"
)

// measure adds one figure of each kind.
func (w *way) measure(ctx context.Context, span time.Duration) error {
	for _, m := range []struct {
		streams string
		to      *[]float64
	}{{"1", &w.one}, {"4", &w.four}} {
		rate, err := w.iperf(ctx, span, m.streams)
		if err != nil {
			return err
		}
		*m.to = append(*m.to, rate)
	}
	n, err := w.echo(ctx, span)
	w.requests = append(w.requests, n)
	return err
}

func (w *way) iperf(ctx context.Context, span time.Duration, streams string) (float64, error) {
	server := w.host.Command(ctx, "iperf3", "-s", "-1", "-p", iperfPort, "--forceflush")
	stop, err := serve(server, "Server listening")
	if err != nil {
		return 0, err
	}
	defer stop()
	out, err := w.client.Output(ctx, "iperf3", "-c", w.server.String(), "-p", iperfPort, "-P", streams, "-t", strconv.Itoa(int(span.Seconds())), "-J")
	if err != nil {
		return 0, err
	}
	var res struct {
		End struct {
			Sum struct {
				Bits float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &res); err != nil {
		return 0, fmt.Errorf("iperf3: %w", err)
	}
	return res.End.Sum.Bits / 1e6, nil
}

// echo counts requests and answers of one byte on one TCP connection.
func (w *way) echo(ctx context.Context, span time.Duration) (float64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	stop, err := serve(w.host.Command(ctx, self, "-echo", echoPort), "listening")
	if err != nil {
		return 0, err
	}
	defer stop()
	out, err := w.client.Output(ctx, self, "-echo", echoPort, "-to", w.server.String(), "-time", span.String())
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(out), 64)
}

type starter interface {
	StdoutPipe() (io.ReadCloser, error)
	Start() error
	Wait() error
}

// serve starts a server and waits until it says that it listens.
func serve(cmd starter, ready string) (stop func(), err error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if strings.Contains(line, ready) {
			break
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("server: %w", err), cmd.Wait())
		}
	}
	return func() {
		_, _ = io.Copy(io.Discard, lines) // a server ends with its first client
		_ = cmd.Wait()
	}, nil
}

// echoes is the server of single bytes, or its client.
func echoes(port, to string, span time.Duration) int {
	var err error
	if to == "" {
		err = answer(port)
	} else {
		err = ask(net.JoinHostPort(to, port), span)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func answer(port string) error {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	fd, err := blocking(c)
	if err != nil {
		return err
	}
	for b := make([]byte, 1); transfer(unix.SYS_READ, fd, b) && transfer(unix.SYS_WRITE, fd, b); {
	}
	return nil // the client has gone
}

// blocking returns a connection's socket, which blocks. Go's own way, a poller and threads
// that wake each other, would be more than half of what a request costs.
func blocking(c net.Conn) (fd uintptr, err error) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	return fd, errors.Join(raw.Control(func(s uintptr) {
		fd, err = s, unix.SetNonblock(int(s), false)
	}), err)
}

// transfer reads or writes one byte without a word to Go's scheduler.
func transfer(call, fd uintptr, b []byte) bool {
	for {
		n, _, errno := unix.RawSyscall(call, fd, uintptr(unsafe.Pointer(&b[0])), 1)
		if errno != unix.EINTR {
			return n == 1 && errno == 0
		}
	}
}

// settle is how long a conversation goes on before it is measured: OVS's kernel datapath
// sorts the masks of its flows by use every four seconds.
const settle = 5 * time.Second

func ask(server string, span time.Duration) error {
	c, err := net.Dial("tcp", server)
	if err != nil {
		return err
	}
	defer c.Close()
	fd, err := blocking(c)
	if err != nil {
		return err
	}
	b, rate := make([]byte, 1), 0.0
	for _, d := range []time.Duration{settle, span} {
		began, n := time.Now(), 0
		for ; time.Since(began) < d; n++ {
			if !transfer(unix.SYS_WRITE, fd, b) || !transfer(unix.SYS_READ, fd, b) {
				return errors.New("the server has gone")
			}
		}
		rate = float64(n) / time.Since(began).Seconds()
	}
	fmt.Println(rate)
	return nil
}
