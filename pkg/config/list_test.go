package config_test

import (
	"encoding/json"
	"errors"
	"testing"

	"ovs-gre-cni/pkg/config"
)

func TestParseList(t *testing.T) {
	l, err := config.ParseList([]byte(`{"cniVersion":"0.4.0","cniVersions":["1.0.0","1.1.0","0.4.0"],"name":"blue","plugins":[
		{"type":"bridge","ipam":{"type":"host-local"}},{"type":"route-sync","mode":"direct","nodes":` + two + `}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if l.Name != "blue" || l.CNIVersion != "1.1.0" || len(l.Plugins) != 2 || l.Plugins[0].IPAM != "host-local" || l.Find("ovs-gre") != nil {
		t.Errorf("%+v", l)
	}
	r, err := config.ParseRoutes(l.Find("route-sync").Raw)
	if err != nil || r.Name != "blue" || r.CNIVersion != "1.1.0" || r.Mode != config.ModeDirect {
		t.Errorf("%+v, %v", r, err)
	}
	l, err = config.ParseList([]byte(`{"cniVersion":"1.0.0","name":"blue","type":"ovs-gre","nodes":` + two + `}`))
	if err != nil || len(l.Plugins) != 1 || l.Plugins[0].Type != "ovs-gre" {
		t.Fatalf("%+v, %v", l, err)
	}
	if c, err := config.Parse(l.Plugins[0].Raw); err != nil || c.Name != "blue" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestParseListProblems(t *testing.T) {
	for in, want := range map[string]error{
		``: config.ErrDecode, `{`: config.ErrDecode, `[]`: config.ErrDecode, `{"plugins":{}}`: config.ErrDecode, `{"plugins":[1]}`: config.ErrDecode,
		`{}`: config.ErrInvalid, `null`: config.ErrInvalid, `{"plugins":[{}]}`: config.ErrInvalid, `{"plugins":[null]}`: config.ErrInvalid,
	} {
		if l, err := config.ParseList([]byte(in)); !errors.Is(err, want) {
			t.Errorf("%s: %+v, %v", in, l, err)
		}
	}
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"blue","plugins":[{"type":"ovs-gre"},{"type":"route-sync"}]}`))
	f.Add([]byte(`{"cniVersions":["1.x"],"type":"ovs-gre","ipam":{"type":"host-local"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := config.ParseList(raw)
		if err != nil {
			if !errors.Is(err, config.ErrDecode) && !errors.Is(err, config.ErrInvalid) {
				t.Errorf("wraps no sentinel: %v", err)
			}
			return
		}
		for _, p := range l.Plugins {
			if !json.Valid(p.Raw) || p.Type == "" {
				t.Errorf("%+v", p)
			}
		}
	})
}

func TestVersionLess(t *testing.T) {
	for _, v := range [][2]string{{"1.0.0", "1.1.0"}, {"0.4.0", "1.0.0"}, {"", "0.3.1"}, {"1.9", "1.10"}, {"1.0", "1.0.1"}} {
		if !config.VersionLess(v[0], v[1]) || config.VersionLess(v[1], v[0]) || config.VersionLess(v[0], v[0]) {
			t.Errorf("%v", v)
		}
	}
}
