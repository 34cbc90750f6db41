package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A need is what a verb must have in its environment. CNI_PATH is optional in
// the specification and asked for by the library.
var needs = []struct {
	verb, since string
	vars        []string
}{
	{"ADD", "", []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}},
	{"DEL", "", []string{"CNI_CONTAINERID", "CNI_IFNAME"}},
	{"CHECK", "0.4.0", []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}},
	{"STATUS", "1.1.0", nil},
	{"GC", "1.1.0", nil},
}

// everyVerb calls f for each plugin and each verb that the version has.
func (t *try) everyVerb(f func(i int, verb string, vars []string) error) error {
	var errs []error
	for i := range t.net.plugins {
		for _, n := range needs {
			if n.since == "" || atLeast(t.net.version, n.since) {
				errs = append(errs, f(i, n.verb, n.vars))
			}
		}
	}
	return errors.Join(errs...)
}

// nobody is a box that is never attached.
func nobody() *box { return &box{id: "nobody", ifname: "eth0", netns: netnsDir + "nobody"} }

// refuse wants each plugin and verb to refuse an environment or a
// configuration, and nothing to come of it.
func (t *try) refuse(codes []uint, bad string, env string, edit func(conf)) error {
	return about(bad, t.everyVerb(func(i int, verb string, vars []string) error {
		if env != "" && len(vars) == 0 {
			return nil
		}
		c := t.net.conf(i, nil)
		if edit != nil {
			edit(c)
		}
		raw, err := json.Marshal(c)
		if err != nil {
			return err
		}
		return t.raw(i, verb, string(raw), env).fails(codes)
	}))
}

// raw calls a plugin with any standard input.
func (t *try) raw(i int, verb, stdin string, env ...string) answer {
	b := nobody()
	base := []string{"CNI_COMMAND=" + verb, "CNI_PATH=" + cniPath, "CNI_CONTAINERID=" + b.id, "CNI_IFNAME=" + b.ifname, "CNI_NETNS=" + b.netns}
	if env = slices.DeleteFunc(env, func(e string) bool { return e == "" }); len(env) > 0 {
		base = append(base, env...)
	}
	return t.exec(t.net.plugins[i].typ(), verb, stdin, base...)
}

// versions calls VERSION.
func (t *try) versions(plugin, stdin string, env ...string) ([]string, error) {
	a := t.exec(plugin, "VERSION", stdin, append([]string{"CNI_COMMAND=VERSION"}, env...)...)
	if err := a.ok(); err != nil {
		return nil, err
	}
	var v struct {
		CNIVersion string   `json:"cniVersion"`
		Supported  []string `json:"supportedVersions"`
	}
	if err := json.Unmarshal([]byte(a.stdout), &v); err != nil || v.CNIVersion == "" || len(v.Supported) == 0 {
		return nil, fmt.Errorf("%s VERSION printed %q", plugin, short(a.stdout))
	}
	return v.Supported, nil
}

// each calls f for each plugin.
func (t *try) each(f func(i int, plugin string) error) error {
	var errs []error
	for i, c := range t.net.plugins {
		errs = append(errs, f(i, c.typ()))
	}
	return errors.Join(errs...)
}

var badIDs = []string{"../x", "a/b", "-x", ".x", "a b", "a\nb", "ä"}

var common = []Clause{
	{ID: "VER-1", Kind: Spec, Says: "VERSION prints cniVersion and supportedVersions, this version among them", try: func(t *try) error {
		return t.each(func(_ int, p string) error {
			v, err := t.versions(p, t.net.stdin(0, nil))
			if err == nil && !slices.Contains(v, t.net.version) {
				err = fmt.Errorf("%s supports %v", p, v)
			}
			return err
		})
	}},
	{ID: "VER-2", Kind: Library, Says: "VERSION needs no variable but CNI_COMMAND and no input, and reads none", try: func(t *try) error {
		return t.each(func(_ int, p string) error {
			_, err1 := t.versions(p, "")
			_, err2 := t.versions(p, "{nonsense")
			_, err3 := t.versions(p, "{}", "CNI_NETNS=dummy", "CNI_IFNAME=dummy", "CNI_PATH=dummy") // as podman calls it
			return errors.Join(err1, err2, err3)
		})
	}},
	{ID: "VER-3", Kind: Promise, Says: "ovs-gre and route-sync list the same versions", about: hasBoth, try: func(t *try) error {
		a, err1 := t.versions("ovs-gre", "")
		b, err2 := t.versions("route-sync", "")
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if !slices.Equal(a, b) {
			return fmt.Errorf("ovs-gre: %v, route-sync: %v", a, b)
		}
		return nil
	}},
	{ID: "COM-1", Kind: Library, Says: "without CNI_COMMAND: name and versions on standard error, exit 0", try: func(t *try) error {
		return t.each(func(_ int, p string) error {
			a := t.exec(p, "", "")
			if a.exit != 0 || a.stdout != "" || !strings.Contains(a.stderr, t.net.version) || !strings.Contains(a.stderr, p) {
				return fmt.Errorf("%s: exit %d, stdout %q, stderr %q", p, a.exit, short(a.stdout), short(a.stderr))
			}
			return nil
		})
	}},
	{ID: "COM-2", Kind: Spec, Says: "an unknown CNI_COMMAND is an error of code 4", try: func(t *try) error {
		return t.each(func(i int, _ string) error {
			return errors.Join(t.raw(i, "NONSENSE", t.net.stdin(i, nil)).fails(code(4)), t.raw(i, "add", t.net.stdin(i, nil)).fails(code(4)))
		})
	}},
	{ID: "COM-3", Kind: Spec, Says: "a variable that is missing or empty: code 4, and the message names it", try: func(t *try) error {
		return t.everyVerb(func(i int, verb string, vars []string) error {
			var errs []error
			for _, v := range vars {
				errs = append(errs, about(v+" unset", t.raw(i, verb, t.net.stdin(i, nil), "-"+v).fails(code(4), v)),
					about(v+" empty", t.raw(i, verb, t.net.stdin(i, nil), v+"=").fails(code(4), v)))
			}
			return errors.Join(errs...)
		})
	}},
	{ID: "COM-4", Kind: Library, Says: "CNI_PATH missing: code 4, and the message names it", try: func(t *try) error {
		return t.everyVerb(func(i int, verb string, _ []string) error {
			return t.raw(i, verb, t.net.stdin(i, nil), "-CNI_PATH").fails(code(4), "CNI_PATH")
		})
	}},
	{ID: "COM-5", Kind: Library, Says: "container id not of the form [A-Za-z0-9][A-Za-z0-9_.-]*: code 4", try: func(t *try) error {
		var errs []error
		for _, id := range badIDs {
			errs = append(errs, t.refuse(code(4), fmt.Sprintf("%q", id), "CNI_CONTAINERID="+id, nil))
		}
		return errors.Join(errs...)
	}},
	{ID: "COM-6", Kind: Library, Says: "interface name too long, . or .., or with slash, colon or space: code 4", try: func(t *try) error {
		var errs []error
		for _, name := range []string{"sixteen-letters-", ".", "..", "a/b", "a:b", "a b", "a\tb"} {
			errs = append(errs, t.refuse(code(4), fmt.Sprintf("%q", name), "CNI_IFNAME="+name, nil))
		}
		return errors.Join(errs...)
	}},
	{ID: "COM-7", Kind: Library, Says: "network name not of the form of a container id: code 7", try: func(t *try) error {
		var errs []error
		for _, name := range badIDs {
			errs = append(errs, t.refuse(code(7), fmt.Sprintf("%q", name), "", func(c conf) { c["name"] = name }))
		}
		return errors.Join(errs...)
	}},
	{ID: "COM-8", Kind: Spec, Says: "network name missing or empty: code 7", try: func(t *try) error {
		return errors.Join(t.refuse(code(7), "missing", "", func(c conf) { delete(c, "name") }),
			t.refuse(code(7), "empty", "", func(c conf) { c["name"] = "" }))
	}},
	{ID: "COM-9", Kind: Spec, Says: "configuration that is no JSON object: code 6", try: func(t *try) error {
		return t.everyVerb(func(i int, verb string, _ []string) error {
			var errs []error
			good := t.net.stdin(i, nil)
			for _, bad := range []string{"", "nonsense", "[]", `"text"`, good[:len(good)/2], good + "}", strings.Replace(good, `"name":`, `"name":7,"x":`, 1)} {
				errs = append(errs, about(fmt.Sprintf("%.20q", bad), t.raw(i, verb, bad).fails(code(6))))
			}
			return errors.Join(errs...)
		})
	}},
	{ID: "COM-10", Kind: Spec, Says: "a cniVersion that it does not support: code 1", try: func(t *try) error {
		return t.refuse(code(1), "9.9.9", "", func(c conf) { c["cniVersion"] = "9.9.9" })
	}},
	{ID: "COM-11", Kind: Library, Says: "a cniVersion that is none: code 1 or 6", try: func(t *try) error {
		return errors.Join(t.refuse(code(1, 6), "text", "", func(c conf) { c["cniVersion"] = "latest" }),
			t.refuse(code(1, 6), "number", "", func(c conf) { c["cniVersion"] = 1.1 }))
	}},
	{ID: "COM-12", Kind: Spec, Says: "what the runtime puts in (args, runtimeConfig, cni.dev/…) does not disturb ADD and DEL", try: func(t *try) error {
		b, err := t.box()
		if err != nil {
			return err
		}
		n := t.net.edit(func(_ int, c conf) {
			c["args"] = conf{"cni": conf{"labels": []conf{{"key": "app", "value": "x"}}}, "org.example/other": []int{1}}
			c["runtimeConfig"] = conf{"portMappings": []conf{}, "org.example.unknown": conf{"a": 1}, "dns": conf{"Servers": []string{}}}
			c["cni.dev/something"] = true
			c["disableCheck"], c["disableGC"] = false, false
		})
		if err := t.add(n, b); err != nil {
			return err
		}
		if atLeast(t.net.version, "0.4.0") {
			if err := t.check(b); err != nil {
				return err
			}
		}
		return t.del(b)
	}},
	{ID: "COM-13", Kind: Promise, Says: "a key that is not known: code 7 and its name, nothing made", about: ours, try: func(t *try) error {
		return t.unchanged(func() error {
			return t.each(func(i int, p string) error {
				if p != "ovs-gre" && p != "route-sync" {
					return nil
				}
				return t.raw(i, "ADD", t.net.stdin(i, conf{"brigde": "x"})).fails(code(7), "brigde")
			})
		})
	}},
	{ID: "COM-14", Kind: Promise, Says: "a value that is not known: code 2, with key and value", about: ours, try: func(t *try) error {
		var errs []error
		if i := t.net.index("ovs-gre"); i >= 0 {
			errs = append(errs, t.raw(i, "ADD", t.net.stdin(i, conf{"segment": "planet"})).fails(code(2), "segment", "planet"))
		}
		if i := t.net.index("route-sync"); i >= 0 {
			errs = append(errs, t.raw(i, "ADD", t.net.stdin(i, conf{"mode": "magic"})).fails(code(2), "mode", "magic"))
		}
		return errors.Join(errs...)
	}},
}

// specCodes are the codes below 100 that mean something; 8 is the library's.
var specCodes = []uint{1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51}

// every looks at all answers of this run, or at all its failures.
func (t *try) every(failures bool, flaw func(answer) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.ContainsFunc(t.seen, func(a answer) bool { return (a.exit != 0) == failures }) {
		return errors.New("there was no such answer")
	}
	seen := map[string]int{}
	var errs []error
	for _, a := range t.seen {
		if err := flaw(a); err != nil {
			if seen[a.plugin+a.verb]++; seen[a.plugin+a.verb] == 1 && len(errs) < 12 {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// overall are clauses about all answers to what came before.
var overall = []Clause{
	{ID: "ERR-1", Kind: Spec, Says: "every failure prints an error with code and msg on standard output", try: func(t *try) error {
		return t.every(true, func(a answer) error {
			if f := a.failure(); f != nil && f.flaw != "" {
				return f
			}
			return nil
		})
	}},
	{ID: "ERR-2", Kind: Spec, Says: "every error has the key cniVersion", try: func(t *try) error {
		return t.every(true, func(a answer) error {
			if f := a.failure(); f != nil && f.flaw == "" && f.version == "" {
				return fmt.Errorf("%s %s: no cniVersion in %q", a.plugin, a.verb, short(a.stdout))
			}
			return nil
		})
	}},
	{ID: "ERR-3", Kind: Spec, Says: "every code below 100 is one that the specification or the library defines", try: func(t *try) error {
		return t.every(true, func(a answer) error {
			if f := a.failure(); f != nil && f.flaw == "" && f.code < 100 && !slices.Contains(specCodes, f.code) {
				return f
			}
			return nil
		})
	}},
	{ID: "ERR-4", Kind: Promise, Says: "no error ever has code 999, which says nothing, or 3, which forbids DEL", try: func(t *try) error {
		return t.every(true, func(a answer) error {
			if f := a.failure(); f != nil && (f.code == 999 || f.code == 3) {
				return f
			}
			return nil
		})
	}},
	{ID: "ERR-5", Kind: Promise, Says: "every message is one line without control characters", try: func(t *try) error {
		return t.every(true, func(a answer) error {
			if f := a.failure(); f != nil && f.flaw == "" && strings.ContainsFunc(f.msg, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				return fmt.Errorf("%s %s: %q", a.plugin, a.verb, f.msg)
			}
			return nil
		})
	}},
	{ID: "OUT-1", Kind: Spec, Says: "DEL, CHECK, STATUS and GC that succeed print nothing", try: func(t *try) error {
		return t.every(false, func(a answer) error {
			if a.exit == 0 && a.stdout != "" && slices.Contains([]string{"DEL", "CHECK", "STATUS", "GC"}, a.verb) {
				return fmt.Errorf("%s %s printed %q", a.plugin, a.verb, short(a.stdout))
			}
			return nil
		})
	}},
}
