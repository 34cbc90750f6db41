// Command sbom prints what modules programs are made of as an SPDX 2.3 document,
// by what Go has written into them (go version -m).
package main

import (
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type reference struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxPackage struct {
	ID            string      `json:"SPDXID"`
	Name          string      `json:"name"`
	Version       string      `json:"versionInfo"`
	Download      string      `json:"downloadLocation"`
	FilesAnalyzed bool        `json:"filesAnalyzed"`
	License       string      `json:"licenseConcluded"`
	Declared      string      `json:"licenseDeclared"`
	Copyright     string      `json:"copyrightText"`
	Comment       string      `json:"comment,omitempty"`
	Checksums     []checksum  `json:"checksums,omitempty"`
	References    []reference `json:"externalRefs,omitempty"`
}

type relationship struct {
	Of   string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

type document struct {
	Version   string `json:"spdxVersion"`
	License   string `json:"dataLicense"`
	ID        string `json:"SPDXID"`
	Name      string `json:"name"`
	Namespace string `json:"documentNamespace"`
	Creation  struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	} `json:"creationInfo"`
	Packages      []spdxPackage  `json:"packages"`
	Relationships []relationship `json:"relationships"`
}

func main() {
	version := flag.String("version", "devel", "the release's version")
	created := flag.Int64("time", 0, "when it was made, in `seconds` since 1970")
	flag.Parse()
	d, err := describe(*version, time.Unix(*created, 0), flag.Args())
	if err == nil {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", " ")
		err = enc.Encode(d)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// none is what SPDX has where nothing was looked for.
const none = "NOASSERTION"

func describe(version string, created time.Time, files []string) (*document, error) {
	d := &document{Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: "ovs-gre-" + version}
	d.Creation.Created = created.UTC().Format(time.RFC3339)
	d.Creation.Creators = []string{"Tool: ovs-gre-deploy-release-sbom"}
	modules := map[string]spdxPackage{}
	content := sha256.New()
	for _, file := range files {
		info, err := buildinfo.ReadFile(file)
		if err != nil {
			return nil, err
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(raw)
		content.Write(sum[:])
		settings := map[string]string{}
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
		p := spdxPackage{
			ID: id("program", settings["GOARCH"], filepath.Base(file)), Name: filepath.Base(file), Version: version,
			Download: none, License: none, Declared: none, Copyright: none,
			Comment: "linux/" + settings["GOARCH"] + ", " + info.GoVersion, Checksums: []checksum{{"SHA256", hex.EncodeToString(sum[:])}},
		}
		if info.Main.Path == "ovs-gre-cni" {
			p.License, p.Declared = "Apache-2.0", "Apache-2.0"
		}
		if slices.ContainsFunc(d.Packages, func(have spdxPackage) bool { return have.ID == p.ID }) {
			continue // the image's plugins are the archive's
		}
		d.Packages = append(d.Packages, p)
		d.Relationships = append(d.Relationships, relationship{d.ID, "DESCRIBES", p.ID})
		deps := []spdxPackage{module("std", strings.TrimPrefix(info.GoVersion, "go"), "")}
		if info.Main.Path != "ovs-gre-cni" && info.Main.Path != "" {
			deps = append(deps, module(info.Main.Path, info.Main.Version, info.Main.Sum))
		}
		for _, m := range info.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			deps = append(deps, module(m.Path, m.Version, m.Sum))
		}
		for _, m := range deps {
			modules[m.ID] = m
			d.Relationships = append(d.Relationships, relationship{p.ID, "STATIC_LINK", m.ID})
		}
	}
	for _, m := range modules {
		d.Packages = append(d.Packages, m)
	}
	slices.SortFunc(d.Packages, func(a, b spdxPackage) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(d.Relationships, func(a, b relationship) int { return cmp.Or(cmp.Compare(a.Of, b.Of), cmp.Compare(a.To, b.To)) })
	d.Namespace = "https://example.org/spdx/ovs-gre-" + version + "-" + hex.EncodeToString(content.Sum(nil))[:16]
	return d, nil
}

// module is a module of Go. sum is go.sum's, a SHA-256 over a list of its files.
func module(path, version, sum string) spdxPackage {
	p := spdxPackage{ID: id("module", path, version), Name: path, Version: version,
		Download: none, License: none, Declared: none, Copyright: none,
		References: []reference{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + path + "@" + version}}}
	if raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sum, "h1:")); err == nil && len(raw) == sha256.Size {
		p.Comment = "go.sum " + sum
	}
	return p
}

// id is an identifier of SPDX, which has letters, digits, dots and hyphens.
func id(parts ...string) string {
	return "SPDXRef-" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-':
			return r
		}
		return '-'
	}, strings.Join(parts, "-"))
}
