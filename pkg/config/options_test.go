package config_test

import (
	"fmt"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
)

// TestOptionsKeepSecrets: a secret that stands in a conflist, against the rules, is
// refused and not repeated, wherever it stands in tunnel.options.
func TestOptionsKeepSecrets(t *testing.T) {
	const secret = "xyzzy"
	for _, options := range []string{
		`"%s"`, `["%s"]`, `{"psk":"%s"}`, `{"psk":["%s"]}`, `{"psk":{"%s":1}}`, `{"psk":{"file":"%s"}}`, `{"psk":{"file":["%s"]}}`,
		`{"psk":{"File":"%s"}}`, `{"psk":{"file":"/a","value":"%s"}}`, `{"PSK":"%s"}`, `{"Psk":"%s"}`, `{"psk ":"%s"}`, `{"psk":"x","psk":"%s"}`,
		`{"key":"%s"}`, `{"a b":"%s"}`,
	} {
		_, err := config.Parse(ovsgre(`,"nodes":` + two + `,"tunnel":{"options":` + fmt.Sprintf(options, secret) + `}`))
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", options, err)
		}
	}
}
