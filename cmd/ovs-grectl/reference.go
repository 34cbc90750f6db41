package main

import (
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/spf13/cobra"
)

// reference makes texts from the table of commands: manual pages, docs/ovs-grectl.md, the
// schema of the JSON, and the shells' completions, which the packages install.
func (c *call) reference(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "reference man|completions DIR | markdown | schema", Hidden: true, Args: cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case args[0] == "markdown":
				return markdown(c.out)
			case args[0] == "schema":
				return c.schema()
			case args[0] == "man" && len(args) == 2:
				return manual(args[1])
			case args[0] == "completions" && len(args) == 2:
				return completions(root, args[1])
			}
			return fmt.Errorf("reference %s: want man DIR, completions DIR, markdown or schema", strings.Join(args, " "))
		},
	}
}

// everywhere is about all commands.
const everywhere = "Every command takes `-o json` (`--output json`), whose schema is [ovs-grectl.schema.json](ovs-grectl.schema.json),\n" +
	"and `--help`. Colour is for terminals, and not where `NO_COLOR` is set. `ovs-grectl completion bash|zsh|fish` prints a\n" +
	"shell's completion; the packages install them, and a page of the manual for each command."

func synopsis(cmd command) string {
	return strings.TrimSpace("ovs-grectl " + cmd.name + " " + cmd.args)
}

// forms are the ways to write an option.
func (o option) forms() []string {
	if o.short == "" {
		return []string{"--" + o.name}
	}
	return []string{"-" + o.short, "--" + o.name}
}

// jsonResult is what a command prints as JSON; of one that prints none, that.
func jsonResult(cmd command) string {
	if cmd.result == nil {
		return "refused"
	}
	if reflect.TypeOf(cmd.result).Kind() == reflect.Slice {
		return "a list of " + definition(reflect.TypeOf(cmd.result).Elem())
	}
	return definition(reflect.TypeOf(cmd.result))
}

// markdown is docs/ovs-grectl.md.
func markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# ovs-grectl\n\n<!-- Made from the commands' own texts: go test ./test/docs -update -->\n\n" + about + "\n\n")
	b.WriteString("| command | |\n|---|---|\n")
	for _, cmd := range commands {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", cmd.name, cmd.name, cmd.short)
	}
	b.WriteString("\n" + everywhere + "\n")
	for _, cmd := range commands {
		fmt.Fprintf(&b, "\n## %s\n\n    %s\n\n%s\n\n", cmd.name, synopsis(cmd), cmd.long)
		if cmd.verbose != "" {
			fmt.Fprintf(&b, "* `-v`, `--verbose`: print %s\n", cmd.verbose)
		}
		for _, o := range cmd.options {
			fmt.Fprintf(&b, "* `%s`: %s\n", strings.Join(o.forms(), "`, `"), o.text)
		}
		fmt.Fprintf(&b, "* `-o json`: %s\n\n```sh\n%s\n```\n", jsonResult(cmd), cmd.example)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// roff escapes text for a page of the manual (groff_char(7)).
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", "\n.br\n").Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

// manual writes ovs-grectl.8, and a page for each command.
func manual(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	head := func(name, short, synopsis, text string) string {
		const form = ".TH %s 8 \"\" \"ovs-gre\" \"System Administration\"\n.SH NAME\n%s \\- %s\n.SH SYNOPSIS\n.B %s\n.SH DESCRIPTION\n%s\n"
		return fmt.Sprintf(form,
			strings.ToUpper(name), roff(name), roff(short), roff(synopsis), roff(text))
	}
	also := []string{".BR ovs\\-gre (8)", ".BR route\\-sync (8)"}
	main := head("ovs-grectl", "make, show and remove the host state of ovs-gre's networks", "ovs-grectl COMMAND [--output json] [FILE...]",
		strings.ReplaceAll(about, "\n\n", "\n")) + ".SH COMMANDS\n"
	for _, cmd := range commands {
		main += ".TP\n.B " + roff(strings.TrimSpace(cmd.name+" "+cmd.args)) + "\n" + roff(cmd.short) + "\n"
		also = append(also, ".BR ovs\\-grectl\\-"+cmd.name+" (8)")
		page := head("ovs-grectl-"+cmd.name, cmd.short, synopsis(cmd), wrap(cmd.long, len(cmd.long))) +
			".SH OPTIONS\n.TP\n.B \\-o, \\-\\-output json\nprint " + roff(jsonResult(cmd)) + "\n"
		if cmd.verbose != "" {
			page += ".TP\n.B \\-v, \\-\\-verbose\nprint " + roff(cmd.verbose) + "\n"
		}
		for _, o := range cmd.options {
			page += ".TP\n.B " + roff(strings.Join(o.forms(), ", ")) + "\n" + roff(o.text) + "\n"
		}
		page += ".SH EXAMPLES\n.nf\n" + strings.ReplaceAll(roff(cmd.example), "\n.br\n", "\n") + "\n.fi\n" +
			".SH SEE ALSO\n.BR ovs\\-grectl (8)\n"
		if err := os.WriteFile(filepath.Join(dir, "ovs-grectl-"+cmd.name+".8"), []byte(page), 0o644); err != nil {
			return err
		}
	}
	main += ".SH SEE ALSO\n" + strings.Join(also, ",\n") + "\n"
	return os.WriteFile(filepath.Join(dir, "ovs-grectl.8"), []byte(main), 0o644)
}

// completions writes the file of each shell, with the name that the shell needs.
func completions(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, write := range map[string]func(string) error{
		"ovs-grectl":      func(path string) error { return root.GenBashCompletionFileV2(path, true) },
		"_ovs-grectl":     root.GenZshCompletionFile,
		"ovs-grectl.fish": func(path string) error { return root.GenFishCompletionFile(path, true) },
	} {
		if err := write(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// schema prints the JSON schema of --output json, by command.
func (c *call) schema() error {
	defs, results := map[string]any{}, map[string]any{}
	for _, cmd := range commands {
		if cmd.result == nil {
			continue
		}
		results[cmd.name] = schemaOf(reflect.TypeOf(cmd.result), defs)
	}
	enc := json.NewEncoder(c.out)
	enc.SetIndent("", "  ")
	return enc.Encode(map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "What ovs-grectl COMMAND --output json prints",
		"description": "Made from the program's own types: go test ./test/docs -update.", "properties": results, "$defs": defs,
	})
}

// definition names a type in the schema: doctor.Finding is finding.
func definition(t reflect.Type) string { return strings.ToLower(t.Name()[:1]) + t.Name()[1:] }

func schemaOf(t reflect.Type, defs map[string]any) map[string]any {
	if t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), defs)
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), defs)}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Struct:
		name := definition(t)
		if defs[name] == nil {
			defs[name] = true // for a type that contains itself
			defs[name] = schemaOfStruct(t, defs)
		}
		return map[string]any{"$ref": "#/$defs/" + name}
	}
	return map[string]any{"type": "integer"}
}

func schemaOfStruct(t reflect.Type, defs map[string]any) map[string]any {
	props, required := map[string]any{}, []string{}
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		props[name] = schemaOf(t.Field(i).Type, defs)
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
			required = append(required, name)
		}
	}
	return map[string]any{"type": "object", "properties": props, "required": required, "additionalProperties": false}
}
