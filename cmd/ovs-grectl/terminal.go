package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// isTerminal reports whether w is a terminal that understands control sequences.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Colours of a terminal (ECMA-48, SGR).
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
)

// colour colours a text, if the output is a terminal and NO_COLOR is not set (no-color.org).
func (c *call) colour(sgr, s string) string {
	if !c.outTerm || os.Getenv("NO_COLOR") != "" || s == "" {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

// A table is printed in aligned columns. paint, if not nil, returns the colour of a cell.
type table struct {
	indent string
	rows   [][]string
	paint  func(row, column int) string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(c *call, w io.Writer) {
	var widths []int
	for _, r := range t.rows {
		for i, cell := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for n, r := range t.rows {
		var b strings.Builder
		b.WriteString(t.indent)
		for i, cell := range r {
			painted := cell
			if t.paint != nil {
				if sgr := t.paint(n, i); sgr != "" {
					painted = c.colour(sgr, cell)
				}
			}
			b.WriteString(painted + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// progress shows on a terminal the progress of work that takes longer than a second.
type progress struct {
	w  io.Writer
	on bool

	mu    sync.Mutex
	what  string
	far   func() string // the progress as text; nil is not known
	shown bool
	stop  chan struct{}
}

// progressDelay is how long nothing is shown.
const progressDelay = time.Second

// begin starts to show a text after a second, with the seconds that it takes.
func (p *progress) begin(what string) {
	if !p.on {
		return
	}
	p.end()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what, p.stop = what, make(chan struct{})
	began, stop := time.Now(), p.stop
	go func() {
		ticker := time.NewTicker(progressDelay / 4)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
			}
			if d := time.Since(began); d >= progressDelay {
				p.show(stop, p.howFar(), d)
			}
		}
	}()
}

func (p *progress) show(of chan struct{}, far string, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop == of {
		p.shown = true
		fmt.Fprintf(p.w, "\r\x1b[K%s%s … %.0f s", p.what, far, d.Seconds())
	}
}

func (p *progress) howFar() string {
	p.mu.Lock()
	far := p.far
	p.mu.Unlock()
	if far == nil {
		return ""
	}
	return far()
}

// ask sets a function that returns the progress as text. It is called again and again until
// end.
func (p *progress) ask(far func() string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.far = far
}

// step changes the text.
func (p *progress) step(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what = fmt.Sprintf(format, args...)
}

// end removes the text for good.
func (p *progress) end() {
	p.mu.Lock()
	if p.stop != nil {
		close(p.stop)
		p.stop, p.far = nil, nil
	}
	p.mu.Unlock()
	p.clear()
}

// clear removes the text, so that other output can be printed.
func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}
