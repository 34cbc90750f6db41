package kernel

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// wgUser is the name of a link of a running wireguard-go, which the text protocol at its
// socket configures (wireguard.com/xplatform).
type wgUser string

// wgPatience bounds one request; wireguard-go answers at once.
const wgPatience = 5 * time.Second

// talk sends a request and calls each for every line key=value of the answer. The error
// wraps the errno at the end of the answer.
func (w wgUser) talk(ctx context.Context, request string, each func(key, value string) error) error {
	path := "/var/run/wireguard/" + string(w) + ".sock"
	conn, err := new(net.Dialer).DialUnix(ctx, "unix", nil, &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		return fmt.Errorf("wireguard-go: %w", err)
	}
	defer func() { _ = conn.Close() }() // the answer is read, or the error of reading it tells more
	if err := conn.SetDeadline(time.Now().Add(wgPatience)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(request + "\n")); err != nil {
		return fmt.Errorf("wireguard-go: %w", err)
	}
	in := bufio.NewScanner(conn)
	for in.Scan() {
		key, value, _ := strings.Cut(in.Text(), "=")
		if key == "errno" {
			n, err := strconv.Atoi(value)
			if err == nil && n != 0 {
				err = fmt.Errorf("wireguard-go: %w", unix.Errno(max(n, -n)))
			}
			return err
		}
		if err := each(key, value); err != nil {
			return fmt.Errorf("wireguard-go: %s: %w", key, err)
		}
	}
	return fmt.Errorf("wireguard-go: no answer to its end: %w", in.Err())
}

func (w wgUser) get(ctx context.Context) (WireGuardDevice, error) {
	var dev WireGuardDevice
	err := w.talk(ctx, "get=1\n", func(key, value string) (err error) {
		n, _ := strconv.ParseInt(value, 10, 64) // 0 of what is no number
		switch key {
		case "private_key":
			return unhex(dev.Private[:], value)
		case "listen_port":
			dev.Port = uint16(n)
		case "public_key":
			dev.Peers = append(dev.Peers, WireGuardPeer{})
			return unhex(dev.Peers[len(dev.Peers)-1].Key[:], value)
		}
		if len(dev.Peers) == 0 {
			return nil
		}
		p := &dev.Peers[len(dev.Peers)-1]
		switch key {
		case "endpoint":
			p.Endpoint, err = netip.ParseAddrPort(value)
		case "persistent_keepalive_interval":
			p.Keepalive = uint16(n)
		case "allowed_ip":
			var a netip.Prefix
			a, err = netip.ParsePrefix(value)
			p.Allowed = append(p.Allowed, a)
		case "last_handshake_time_sec":
			if n != 0 {
				p.Handshake = time.Unix(n, 0)
			}
		case "rx_bytes":
			p.Received = uint64(n)
		case "tx_bytes":
			p.Sent = uint64(n)
		}
		return err
	})
	return dev, err
}

// unhex reads a key in hexadecimal. The error does not contain it.
func unhex(into []byte, s string) error {
	if len(s) != hex.EncodedLen(len(into)) {
		return unix.EINVAL
	}
	_, err := hex.Decode(into, []byte(s))
	return err
}

func (w wgUser) set(c wgConfig) error {
	var b strings.Builder
	b.WriteString("set=1\n")
	if c.private != nil {
		fmt.Fprintf(&b, "private_key=%x\n", c.private[:])
	}
	if c.port != 0 {
		fmt.Fprintf(&b, "listen_port=%d\n", c.port)
	}
	if p := c.peer; p != nil {
		fmt.Fprintf(&b, "public_key=%x\n", p.key[:])
		if p.remove {
			b.WriteString("remove=true\n")
		}
		if p.endpoint.IsValid() {
			fmt.Fprintf(&b, "endpoint=%s\n", p.endpoint)
		}
		if p.keepalive != nil {
			fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", *p.keepalive)
		}
		if p.allowed != nil {
			b.WriteString("replace_allowed_ips=true\n")
		}
		for _, a := range p.allowed {
			fmt.Fprintf(&b, "allowed_ip=%s\n", a)
		}
	}
	return w.talk(context.Background(), b.String(), func(string, string) error { return nil })
}
