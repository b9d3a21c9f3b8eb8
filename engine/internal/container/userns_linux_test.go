//go:build linux && cgo

package container_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine/internal/container"
)

// The process that a user namespace is made with holds nothing that is open here, its own pipe's other end least of all:
// it would go on to hold that if this process were killed.
func TestIdleHoldsNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to make a user namespace here")
	}
	err := container.WithIdle(func(pid int) error {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		var open []os.DirEntry
		// Nothing tells when it has let go of them.
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			var err error
			if open, err = os.ReadDir(dir); err != nil || len(open) == 1 {
				return err
			}
		}
		return fmt.Errorf("it has %v open, want the end of a pipe that it reads from", open)
	})
	if err != nil {
		t.Error(err)
	}
}
