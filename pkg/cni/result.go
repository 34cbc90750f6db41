package cni

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
)

// ReadResult reads the result of a plugin, as it came and in the latest
// version of the specification. version is the one that it must be in; "" is
// the one that it names. No interface, address or route of it is nil.
func ReadResult(version string, raw []byte) (types.Result, *current.Result, error) {
	// The library's conversions panic on these.
	var lists struct {
		Interfaces []*struct{} `json:"interfaces"`
		IPs        []*struct{} `json:"ips"`
		Routes     []*struct{} `json:"routes"`
	}
	if err := json.Unmarshal(raw, &lists); err != nil {
		return nil, nil, err
	}
	for key, list := range map[string][]*struct{}{"interfaces": lists.Interfaces, "ips": lists.IPs, "routes": lists.Routes} {
		for i, e := range list {
			if e == nil {
				return nil, nil, fmt.Errorf("%s[%d]: null", key, i)
			}
		}
	}
	var res types.Result
	var err error
	if version == "" {
		res, err = create.CreateFromBytes(raw)
	} else {
		res, err = create.Create(version, raw)
	}
	if err != nil {
		return nil, nil, err
	}
	cur, err := current.NewResultFromResult(res)
	if err == nil && cur == nil {
		err = errors.New("no result")
	}
	return res, cur, err
}
