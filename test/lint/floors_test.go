// Package lint holds the rules of the house that a test can tell.
package lint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "ovs-gre-cni/"

// floors are the floors of the packages in the table of docs/design.md. A package
// imports only what is below it, or beside it.
var floors = func() map[string]int {
	raw, err := os.ReadFile("../../docs/design.md")
	if err != nil {
		panic(err)
	}
	m := map[string]int{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\d) \| `+"`(pkg/[^`]+)`").FindAllStringSubmatch(string(raw), -1) {
		m[row[2]], _ = strconv.Atoi(row[1])
	}
	return m
}()

// doors are imports that few packages have; $ is the end of the path, as depguard has it.
var doors = map[string][]string{
	"github.com/vishvananda/netlink$": {"pkg/kernel"},
	"github.com/vishvananda/netlink/": {"pkg/kernel", "pkg/firewall"},
}

// barred are imports that a package must not have, nor anything that it
// imports, however high it lives.
var barred = map[string][]string{
	"plugins/main/ovs-gre":    {"github.com/ovn-org/libovsdb/client", "github.com/prometheus/", "k8s.io/", "github.com/spf13/cobra", "github.com/containernetworking/cni/pkg/invoke", module + "pkg/testnet"},
	"plugins/meta/route-sync": {"github.com/ovn-org/libovsdb/", "github.com/prometheus/", "k8s.io/", "github.com/spf13/cobra", "github.com/containernetworking/cni/pkg/invoke", module + "pkg/ovs", module + "pkg/testnet"},
}

type pkg struct {
	ImportPath    string
	Imports, Deps []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./pkg/...", "./plugins/...", "./cmd/...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// violations lists what breaks the rules.
func violations(list []pkg) (bad []string) {
	for _, p := range list {
		name := strings.TrimPrefix(p.ImportPath, module)
		floor, known := floors[name]
		if !known && strings.HasPrefix(name, "pkg/") && name != "pkg/testnet" {
			bad = append(bad, name+": no floor: add it to the table of docs/design.md")
		}
		for _, i := range p.Imports {
			in := strings.TrimPrefix(i, module)
			if at, ours := floors[in]; known && ours && at > floor {
				bad = append(bad, fmt.Sprintf("%s (floor %d) imports %s (floor %d)", name, floor, in, at))
			}
			if known && in == "pkg/testnet" {
				bad = append(bad, name+" imports the test lab")
			}
			for lib, at := range doors {
				if strings.HasPrefix(in+"$", lib) && !slices.Contains(at, name) {
					bad = append(bad, fmt.Sprintf("%s imports %s, whose doors are %s", name, in, at))
				}
			}
		}
		for _, b := range barred[name] {
			for _, d := range p.Deps {
				if strings.HasPrefix(d, b) {
					bad = append(bad, name+" links "+d)
				}
			}
		}
	}
	return bad
}

func TestFloors(t *testing.T) {
	if len(floors) < 20 {
		t.Fatalf("the table of docs/design.md has %d packages", len(floors))
	}
	for _, v := range violations(packages(t)) {
		t.Error(v)
	}
}

// TestFloorsBite breaks each rule once.
func TestFloorsBite(t *testing.T) {
	for _, p := range []pkg{
		{ImportPath: module + "pkg/config", Imports: []string{module + "pkg/state"}},
		{ImportPath: module + "pkg/kernel", Imports: []string{module + "pkg/attach"}},
		{ImportPath: module + "pkg/rundir", Imports: []string{module + "pkg/testnet"}},
		{ImportPath: module + "pkg/unheard-of"},
		{ImportPath: module + "pkg/network", Imports: []string{"github.com/vishvananda/netlink/nl"}},
		{ImportPath: module + "pkg/firewall", Imports: []string{"github.com/vishvananda/netlink"}},
		{ImportPath: module + "plugins/main/ovs-gre", Deps: []string{"k8s.io/client-go/rest"}},
		{ImportPath: module + "plugins/meta/route-sync", Deps: []string{module + "pkg/ovs"}},
	} {
		if v := violations([]pkg{p}); len(v) != 1 {
			t.Errorf("%+v: %q, want one violation", p, v)
		}
	}
}

// TestDoors holds golangci-lint's rules against the table of doors.
func TestDoors(t *testing.T) {
	raw, err := os.ReadFile("../../.golangci.yml")
	if err != nil {
		t.Fatal(err)
	}
	for lib, at := range doors {
		rule := fmt.Sprintf("files: [\"**/*.go\", \"!**/%s/*.go\"]\n          deny: [{pkg: %s,", strings.Join(at, "/*.go\", \"!**/"), lib)
		if !strings.Contains(string(raw), rule) {
			t.Errorf("no rule that bars %s from all but %s", lib, at)
		}
	}
}

// TestNames keeps rooms from being called nothing.
func TestNames(t *testing.T) {
	for _, p := range packages(t) {
		if slices.Contains([]string{"util", "utils", "common", "misc", "helpers"}, path.Base(p.ImportPath)) {
			t.Errorf("%s: a room is found by its name", p.ImportPath)
		}
	}
}
