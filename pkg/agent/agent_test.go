package agent

import (
	"testing"
	"time"
)

func TestHealthy(t *testing.T) {
	a := &Agent{}
	for _, tt := range []struct {
		began time.Time
		want  bool
	}{{time.Time{}, true}, {time.Now(), true}, {time.Now().Add(-2*passBound - time.Second), false}} {
		a.began = tt.began
		if err := a.Healthy(); (err == nil) != tt.want {
			t.Errorf("a pass began at %s: %v", tt.began, err)
		}
	}
}

// TestRetry: attempts get rarer, never rarer than lastRetry, and not at the
// same moments on all hosts.
func TestRetry(t *testing.T) {
	seen := map[time.Duration]bool{}
	for failures := 1; failures < 100; failures++ {
		d := retry(failures)
		most := lastRetry
		if failures < 7 {
			most = firstRetry << (failures - 1)
		}
		if d > most || d < most*3/4 {
			t.Errorf("after %d failures: %s, want up to %s", failures, d, most)
		}
		seen[d] = true
	}
	if len(seen) < 50 {
		t.Errorf("%d different times of 99", len(seen))
	}
}
