package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
)

// TestStats has a sandbox take of everything, and looks whether it shows.
func TestStats(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	ctx := t.Context()
	sb := create(t, eng, engine.CreateOptions{Limits: engine.Limits{CPUs: 0.5, Processes: 64, Memory: 64 << 20}})
	before, err := sb.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const size = 8 << 20
	script := fmt.Sprintf(`head -c %d /dev/zero > big; ln big big2; mkdir -p d/e; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done`, size)
	if out, err := sb.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for range 100 { // forks, far more than there may be
		_ = sb.Command("sleep", "1000").Start()
	}
	if err := sb.Command("sh", "-c", "x=$(head -c 200000000 /dev/zero | tr '\\0' x)").Run(); err == nil {
		t.Log("the memory limit let a command through that takes more")
	}
	after, err := sb.Stats(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("before %+v\nafter  %+v", before, after)
	for _, check := range []struct {
		what string
		ok   bool
	}{
		{"CPU grows", after.CPU > before.CPU+10*time.Millisecond},
		{"it was throttled", after.Throttled > before.Throttled},
		{"memory is within its limit", after.Memory > 0 && after.Memory <= 64<<20},
		{"the peak is no less than memory", after.MemoryPeak >= after.Memory},
		{"disk counts a file of two names once", after.Disk-before.Disk >= size && after.Disk-before.Disk < size+1<<20},
		{"files: big, d, d/e, and the home that they are in", after.Files-before.Files == 4},
		{"processes", after.Processes > before.Processes && after.Processes <= 64},
		{"refused processes", after.ProcessesRefused > 0 && before.ProcessesRefused == 0},
	} {
		if !check.ok {
			t.Errorf("not so: %s", check.what)
		}
	}
}
