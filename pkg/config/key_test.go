package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
)

// TestNodeKeys: a key is 32 bytes in base64, in the one form that it has, and one
// node's alone.
func TestNodeKeys(t *testing.T) {
	const good = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	node := func(i int, key string) string {
		return fmt.Sprintf(`{"name":"h%d","address":"10.0.0.%d","subnets":["10.1.%d.0/24"],"key":%q}`, i, i, i, key)
	}
	nodes, err := config.DecodeNodes("nodes", []byte("["+node(1, good)+","+node(2, "")+"]"))
	if err != nil || nodes[0].Key != good || nodes[1].Key != "" {
		t.Fatalf("%v: %v", nodes, err)
	}
	for _, key := range []string{"x", good[:43], good + "=", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=", "AAEC", " " + good[1:], good + "\n", good[:20] + "\r\n" + good[20:]} {
		if _, err := config.DecodeNodes("nodes", []byte("["+node(1, key)+"]")); !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), "nodes[0] (h1).key") {
			t.Errorf("%q: %v", key, err)
		}
	}
	if _, err := config.DecodeNodes("nodes", []byte("["+node(1, good)+","+node(2, good)+"]")); !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), "belongs to h1 already") {
		t.Errorf("two with one key: %v", err)
	}
}
