package engine_test

import (
	"fmt"
	"os/exec"
	"sync"
	"testing"

	"github.com/nestbox/nestbox/engine"
)

// TestWrittenProgram runs programs that were written a moment ago, while this process forks all the time: its children
// have their writers' descriptors until they come to their exec.
func TestWrittenProgram(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	program, err := sb.FS().ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var forking sync.WaitGroup
	for range 4 {
		forking.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					_ = exec.Command("/bin/true").Run()
				}
			}
		})
	}
	for n := range 200 {
		name := fmt.Sprintf("/tmp/p%d", n)
		if err := sb.FS().WriteFile(name, program, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := sb.Command(name).Run(); err != nil {
			t.Errorf("program %d: %v", n, err)
		}
	}
	close(done)
	forking.Wait()
}
