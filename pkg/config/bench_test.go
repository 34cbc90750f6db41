package config_test

import (
	"fmt"
	"strings"
	"testing"

	"ovs-gre-cni/pkg/config"
)

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{10, 1000, 5000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var nodes []string
			for i := range n {
				nodes = append(nodes, fmt.Sprintf(`{"name":"node-%05d","address":"172.16.%d.%d","subnets":["10.%[2]d.%[3]d.0/24","fd00:%[1]x::/64"]}`, i, i>>8, i&255))
			}
			stdin := []byte(`{"name":"n","nodes":[` + strings.Join(nodes, ",") + `]}`)
			b.SetBytes(int64(len(stdin)))
			for b.Loop() {
				if _, err := config.Parse(stdin); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
