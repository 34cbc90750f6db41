package cni

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
)

// ReadResult decodes the result of a plugin and returns it twice: in the version
// of the specification that it came in, and in the latest one. version is the
// version that the result must have; "" means the one that it names. No interface,
// address or route of the returned results is nil.
func ReadResult(version string, raw []byte) (types.Result, *current.Result, error) {
	// The library's conversions panic on null elements.
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
