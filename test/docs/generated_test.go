// Package docs keeps what is written about the product equal to the product:
// the JSON schema and the reference of keys are made from pkg/config's tables.
package docs

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/doctor"
	"ovs-gre-cni/test/golden"
	made "ovs-gre-cni/test/page"
)

const root = "../../"

func check(t *testing.T, file, want string) {
	t.Helper()
	golden.Compare(t, root+file, want)
}

type object = map[string]any

// texts is the schema of a list of strings.
var texts = object{"type": "array", "items": object{"type": "string"}}

// property is the schema of one key.
func property(k config.Key) object {
	p := object{"description": k.Doc}
	switch {
	case k.Enum != nil:
		p["enum"] = k.Enum
	case k.Name == "nodes":
		p["$ref"] = "#/$defs/nodes"
	case k.Name == "dns":
		p["type"], p["additionalProperties"] = "object", false
		p["properties"] = object{"domain": object{"type": "string"}, "nameservers": texts, "search": texts, "options": texts}
	case k.Type == "integer or string":
		p["type"] = []string{"integer", "string"}
	case k.Type == "array":
		p["type"], p["items"] = texts["type"], texts["items"]
	default:
		p["type"] = k.Type
	}
	if k.Default != "" {
		p["description"] = fmt.Sprintf("%s (default: %s)", k.Doc, k.Default)
	}
	return p
}

// plugin is the schema of a plugin's configuration in a conflist. Keys of the
// runtime are let through, any other is an error, as in pkg/config.
func plugin(name string, keys []config.Key, capabilities ...string) object {
	props := object{"type": object{"const": name}}
	for _, k := range config.RuntimeKeys {
		if k != "type" {
			props[k] = true
		}
	}
	can := object{}
	for _, c := range capabilities {
		can[c] = object{"type": "boolean"}
	}
	props["capabilities"] = object{"type": "object", "properties": can, "additionalProperties": false}
	for _, k := range keys {
		at, last, nested := strings.Cut(k.Name, ".")
		if !nested {
			props[k.Name] = property(k)
			continue
		}
		if props[at] == nil {
			props[at] = object{"type": "object", "additionalProperties": false, "properties": object{}}
		}
		props[at].(object)["properties"].(object)[last] = property(k)
	}
	return object{
		"type": "object", "required": []string{"type"}, "properties": props,
		"patternProperties": object{"^(cni\\.dev/|nerdctl)": true}, "additionalProperties": false,
	}
}

func schema() string {
	node := object{
		"type": "object", "required": []string{"name", "address", "subnets"}, "additionalProperties": false,
		"properties": object{
			"name":    object{"type": "string", "minLength": 1},
			"address": object{"type": "string", "description": "address on the underlay, IPv4 or IPv6"},
			"subnets": object{"type": "array", "minItems": 1, "items": object{"type": "string"}, "description": "container subnets in CIDR notation, without host bits"},
			"key":     object{"type": "string", "pattern": "^[A-Za-z0-9+/]{43}=$", "description": "public key for tunnel.type wireguard, as ovs-grectl key prints it"},
		},
	}
	prefix := func(of string) object {
		return object{"type": "string", "description": of + " as one IPv4 prefix in CIDR notation, without host bits"}
	}
	fan := object{
		"type": "object", "required": []string{"underlay", "containers"}, "additionalProperties": false,
		"properties":  object{"underlay": prefix("the hosts' addresses"), "containers": prefix("their container subnets")},
		"description": "in place of a list: a host's container subnet has the bits of its address behind containers that the address has behind underlay",
	}
	is := func(name string) object {
		return object{"if": object{"properties": object{"type": object{"const": name}}, "required": []string{"type"}}, "then": object{"$ref": "#/$defs/" + name}}
	}
	raw, err := json.MarshalIndent(object{
		"$schema":     "https://json-schema.org/draft/2020-12/schema",
		"title":       "A CNI conflist with ovs-gre and route-sync",
		"type":        "object",
		"required":    []string{"cniVersion", "name", "plugins"},
		"properties":  object{"cniVersion": object{"type": "string"}, "name": object{"type": "string", "pattern": "^[a-zA-Z0-9][a-zA-Z0-9_.-]*$", "maxLength": 200}, "plugins": object{"type": "array", "minItems": 1, "items": object{"allOf": []object{is("ovs-gre"), is("route-sync")}}}},
		"$defs":       object{"nodes": object{"oneOf": []object{{"type": "array", "minItems": 1, "items": node}, fan}}, "ovs-gre": plugin("ovs-gre", config.NetworkKeys, config.Capabilities...), "route-sync": plugin("route-sync", config.RoutesKeys)},
		"description": "Made from the tables in pkg/config; a test keeps it equal.",
	}, "", "  ")
	if err != nil {
		panic(err)
	}
	return string(raw) + "\n"
}

func TestSchema(t *testing.T) { check(t, "conflist/schema.json", schema()) }

// TestPictures keeps the pictures in the docs as pkg/page draws them.
func TestPictures(t *testing.T) {
	for file, hosts := range map[string]int{"docs/mesh.svg": 4, "docs/mesh-matrix.svg": 12} {
		var b strings.Builder
		if err := made.Mesh(hosts).WriteSVG(&b); err != nil {
			t.Fatal(err)
		}
		check(t, file, b.String())
	}
}

// table is the reference of a plugin's keys.
func table(keys []config.Key) string {
	var b strings.Builder
	b.WriteString("| key | type | default | meaning |\n|---|---|---|---|\n")
	for _, k := range keys {
		def, kind := k.Default, k.Type
		if def != "" && !strings.ContainsAny(def, " ") && !strings.Contains(def, "OVS") {
			def = "`" + def + "`"
		}
		if k.Enum != nil {
			kind = "`" + strings.Join(k.Enum, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Name, kind, def, k.Doc)
	}
	return b.String()
}

// TestReference keeps the tables between the marks of docs/configuration.md.
func TestReference(t *testing.T) {
	const file = "docs/configuration.md"
	raw, err := os.ReadFile(root + file)
	if err != nil {
		t.Fatal(err)
	}
	want := string(raw)
	for name, keys := range map[string][]config.Key{"ovs-gre": config.NetworkKeys, "route-sync": config.RoutesKeys} {
		begin, end := "<!-- keys of "+name+" -->\n", "<!-- end -->"
		before, rest, ok1 := strings.Cut(want, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok1 || !ok2 {
			t.Fatalf("%s: no table of %s between its marks", file, name)
		}
		want = before + begin + table(keys) + end + after
	}
	check(t, file, want)
}

// TestCommands keeps what is written about ovs-grectl equal to what it says
// itself.
func TestCommands(t *testing.T) {
	for file, what := range map[string]string{"docs/ovs-grectl.md": "markdown", "docs/ovs-grectl.schema.json": "schema"} {
		cmd := exec.Command("go", "run", "./cmd/ovs-grectl", "reference", what)
		cmd.Dir = root
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", cmd.Args, err)
		}
		check(t, file, string(out))
	}
}

// TestTroubleshooting: the page has a row for every check of doctor, and none more.
func TestTroubleshooting(t *testing.T) {
	raw, err := os.ReadFile(root + "docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rows, _ := strings.Cut(string(raw), "| check |")
	rows, _, _ = strings.Cut(rows, "\n\n")
	var have []string
	for line := range strings.Lines(rows) {
		if name, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ = strings.Cut(name, "`")
			have = append(have, name)
		}
	}
	if diff := cmp.Diff(doctor.Names(), have); diff != "" {
		t.Errorf("checks, -doctor +docs:\n%s", diff)
	}
}

// TestReadme: the conflist in the README is the shipped one, and every link
// leads somewhere.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile(root + "README.md")
	if err != nil {
		t.Fatal(err)
	}
	shipped, err := os.ReadFile(root + "conflist/gre.conflist")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```json\n"+string(shipped)+"```") {
		t.Error("the README's conflist is not conflist/gre.conflist")
	}
	pages, _ := filepath.Glob(root + "docs/*.md")
	for _, page := range append(pages, root+"README.md", root+"CONTRIBUTING.md") {
		raw, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`).FindAllStringSubmatch(string(raw), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			}
		}
	}
}
