package page

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// A browser is a headless Chromium, spoken to by the Chrome DevTools Protocol
// over two pipes: messages of JSON that end with a zero byte.
type browser struct {
	to   io.WriteCloser
	from *bufio.Reader
	last int
	// session is the page's.
	session string
	events  []message
}

type message struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// longest bounds what a browser takes a second or two for on an idle machine.
const longest = 2 * time.Minute

// start starts a browser with one empty page.
func start(t *testing.T) *browser {
	t.Helper()
	inRead, inWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(), "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{inRead, outWrite}
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("chromium: %v (make test-page installs it)", err)
	}
	inRead.Close()
	outWrite.Close()
	t.Cleanup(func() {
		inWrite.Close()
		// Its processes, which share its group, write to its directory until they end.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		outRead.Close()
	})
	if err := outRead.SetReadDeadline(time.Now().Add(longest)); err != nil {
		t.Fatal(err)
	}
	b := &browser{to: inWrite, from: bufio.NewReader(outRead)}
	var target struct{ TargetID string }
	b.call(t, "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call(t, "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.session = attached.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.call(t, domain+".enable", map[string]any{}, nil)
	}
	return b
}

// call calls a method and waits for its result; events are kept.
func (b *browser) call(t *testing.T, method string, params any, result any) {
	t.Helper()
	b.last++
	call := map[string]any{"id": b.last, "method": method, "params": params}
	if b.session != "" {
		call["sessionId"] = b.session
	}
	raw, err := json.Marshal(call)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.to.Write(append(raw, 0)); err != nil {
		t.Fatal(err)
	}
	for {
		m := b.read(t)
		if m.ID != b.last {
			b.events = append(b.events, m)
			continue
		}
		if m.Error != nil {
			t.Fatalf("%s: %s", method, m.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				t.Fatalf("%s: %v: %s", method, err, m.Result)
			}
		}
		return
	}
}

func (b *browser) read(t *testing.T) (m message) {
	t.Helper()
	raw, err := b.from.ReadBytes(0)
	if err == nil {
		err = json.Unmarshal(raw[:len(raw)-1], &m)
	}
	if err != nil {
		t.Fatalf("chromium: %v", err)
	}
	return m
}

// open goes to a page and waits until it is loaded.
func (b *browser) open(t *testing.T, url string, width, height int, scheme string) {
	t.Helper()
	b.call(t, "Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	b.call(t, "Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.events = nil
	var to struct{ ErrorText string }
	b.call(t, "Page.navigate", map[string]any{"url": url}, &to)
	if to.ErrorText != "" {
		t.Fatalf("%s: %s", url, to.ErrorText)
	}
	for {
		for _, e := range b.events {
			if e.Method == "Page.loadEventFired" {
				return
			}
		}
		b.events = append(b.events, b.read(t))
	}
}

// eval evaluates an expression of JavaScript in the page.
func (b *browser) eval(t *testing.T, expression string, into any) {
	t.Helper()
	var res struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Text string }
	}
	b.call(t, "Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &res)
	if res.ExceptionDetails != nil {
		t.Fatalf("%s: %s", expression, res.ExceptionDetails.Text)
	}
	if err := json.Unmarshal(res.Result.Value, into); err != nil {
		t.Fatalf("%s: %v: %s", expression, err, res.Result.Value)
	}
}

// screenshot keeps what is seen as a file of the directory in the environment's
// OVSGRE_SCREENSHOTS; nowhere where that is not set.
func (b *browser) screenshot(t *testing.T, name string) {
	t.Helper()
	dir := os.Getenv("OVSGRE_SCREENSHOTS")
	if dir == "" {
		return
	}
	var shot struct{ Data string }
	b.call(t, "Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &shot)
	raw, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(fmt.Sprintf("%s/%s.png", dir, name), raw, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// requests are the addresses that the page asked for, complaints what the
// browser says against it.
func (b *browser) requests(t *testing.T) (urls, complaints []string) {
	t.Helper()
	for _, e := range b.events {
		switch e.Method {
		case "Network.requestWillBeSent":
			var p struct{ Request struct{ URL string } }
			if err := json.Unmarshal(e.Params, &p); err != nil {
				t.Fatal(err)
			}
			urls = append(urls, p.Request.URL)
		case "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled":
			complaints = append(complaints, string(e.Params))
		}
	}
	return urls, complaints
}
