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
		CNIVersion string      `json:"cniVersion"`
		Interfaces []*struct{} `json:"interfaces"`
		IPs        []*struct{} `json:"ips"`
		Routes     []*struct{} `json:"routes"`
	}
	var wrong *json.UnmarshalTypeError // the text of which is about Go's types
	switch err := json.Unmarshal(raw, &lists); {
	case errors.As(err, &wrong) && wrong.Field == "":
		return nil, nil, fmt.Errorf("it is a JSON %s: want the result of a plugin, an object", wrong.Value)
	case errors.As(err, &wrong):
		return nil, nil, fmt.Errorf("%s: it cannot be a JSON %s", wrong.Field, wrong.Value)
	case err != nil:
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
	switch {
	case err != nil && version != "" && lists.CNIVersion != version:
		return nil, nil, fmt.Errorf("cniVersion %q: a result of version %q is wanted", lists.CNIVersion, version)
	case err != nil:
		return nil, nil, err
	}
	cur, err := current.NewResultFromResult(res)
	if err == nil && cur == nil {
		err = errors.New("no result")
	}
	return res, cur, err
}
