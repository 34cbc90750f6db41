package ovs_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/state"
)

// A talker is a server that says the same to whoever connects, whatever is asked.
type talker struct {
	path string
	says chan []byte
}

func newTalker(f *testing.F) *talker {
	t := &talker{path: filepath.Join(f.TempDir(), "db.sock"), says: make(chan []byte, 1)}
	l, err := net.Listen("unix", t.path)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			text := <-t.says
			go func() {
				defer c.Close()
				_, _ = c.Write(text)
				_ = c.(*net.UnixConn).CloseWrite()
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
	return t
}

// questions are all that is ever asked of OVSDB.
var questions = []struct {
	name string
	ask  func(context.Context, *ovs.Conn) error
}{
	{"bridge", func(ctx context.Context, c *ovs.Conn) error {
		_, err := c.Bridge(ctx, "obr0", "obr0-t", "og1")
		return err
	}},
	{"add", func(ctx context.Context, c *ovs.Conn) error {
		p := state.Port{Network: "net", Name: "og1", Bridge: "obr0", ContainerID: "c", IfName: "eth0"}
		added, waited, err := c.AddPort(ctx, p, "0", "boot")
		if err == nil {
			err = ovs.WaitPortAdded(ctx, p, added, waited)
		}
		return err
	}},
	{"delete", func(ctx context.Context, c *ovs.Conn) error { _, err := c.DelPorts(ctx, "net", "og1"); return err }},
	{"ports", func(ctx context.Context, c *ovs.Conn) error { _, err := c.ContainerPorts(ctx, "net"); return err }},
	{"bad", func(ctx context.Context, c *ovs.Conn) error { _, err := c.BadPorts(ctx); return err }},
	{"datapath", func(ctx context.Context, c *ovs.Conn) error { _, _, err := c.DatapathType(ctx, "obr0"); return err }},
	{"tunnels", func(ctx context.Context, c *ovs.Conn) error {
		list, err := c.Tunnels(ctx, "net")
		for _, t := range list {
			_ = t.Remote.String()
		}
		return err
	}},
	{"observe", func(ctx context.Context, c *ovs.Conn) error {
		want := state.Set{}
		want.Put(state.Port{Network: "net", Name: "og1", Bridge: "obr0", ContainerID: "c", IfName: "eth0"},
			state.Tunnel{Network: "net", Name: "ot1", Bridge: "obr0", Peer: "host2", Type: "gre", Remote: netip.MustParseAddr("192.0.2.1")})
		have, err := ovs.NewBackend(c, "net").Observe(ctx, want)
		for _, o := range have {
			_ = o.String()
		}
		return err
	}},
}

// FuzzReply: whatever a server says, nothing panics, everything ends, and no
// error is longer than a screen.
func FuzzReply(f *testing.F) {
	row := `{"_uuid":["uuid","550e8400-e29b-41d4-a716-446655440000"],"name":"og1","ports":["set",[["uuid","a"],["uuid","b"]]],"external_ids":["map",[["ovs-gre.network","net"],["ovs-gre.role","container"]]],"ofport":-1,"error":"no such device","options":["map",[["remote_ip","192.0.2.1"]]],"statistics":["map",[["rx_packets",1]]],"tag":["set",[]]}`
	rows := `{"rows":[` + row + `]}`
	for _, said := range []string{
		`{"id":1,"error":null,"result":[` + strings.Repeat(rows+",", 9) + rows + `]}{"id":2,"error":null,"result":[` + strings.Repeat(`{"count":1},`, 9) + `{}]}`,
		`{"id":1,"error":null,"result":[{"uuid":["uuid","a"]},{"uuid":["uuid","b"]},{"count":1}]}{"id":2,"error":null,"result":[{},` + rows + `]}`,
		`{"id":1,"error":null,"result":[]}`,
		`{"id":1,"error":null,"result":[null,null,null,null,null,null,null,null]}{"id":2,"result":null}`,
		`{"id":1,"error":null,"result":[{"error":"timed out","details":"\u001b[2J"},null,{}]}`,
		`{"id":1,"error":"` + strings.Repeat("no", 1000) + `","result":null}`,
		`{"id":1,"error":null,"result":[{"error":"constraint violation","details":"` + strings.Repeat("so ", 1000) + `"},{},{},{},{},{},{},{},{}]}`,
		`{"id":"x","method":"echo","params":[1]}{"id":null,"method":"update","params":[]}{"id":1,"result":{}}`,
		"HTTP/1.1 400 Bad Request\r\n\r\n",
	} {
		for i := range questions {
			f.Add(uint8(i), []byte(said))
		}
	}
	server := newTalker(f)
	f.Fuzz(func(t *testing.T, question uint8, said []byte) {
		q := questions[int(question)%len(questions)]
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		c, err := ovs.Dial(ctx, server.path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		server.says <- said
		err = q.ask(ctx, c)
		if ctx.Err() != nil {
			t.Errorf("%s: it waited for an answer that was not to come: %v", q.name, err)
		}
		if err != nil && len(err.Error()) > 2000 {
			t.Errorf("%s: an error of %d bytes: %.200s…", q.name, len(err.Error()), err)
		}
	})
}
