package engine_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/nestbox/nestbox/engine"
)

// TestOutOfMemory has commands take more than there is. They are ended, and neither the agent nor others.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{Limits: engine.Limits{Memory: 64 << 20}})
	bystander := sb.Command("sleep", "1000")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"root", "user"} {
		for range 3 {
			c := sb.Command("dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1")
			c.User, c.Dir = user, "/"
			var exit *engine.ExitError
			if err := c.Run(); !errors.As(err, &exit) || !exit.OOM || exit.Signal() != syscall.SIGKILL || !strings.Contains(err.Error(), "out of memory") {
				t.Errorf("as %s: %v, want it killed for want of memory", user, err)
			}
		}
	}
	var exit *engine.ExitError
	if err := sb.Command("sh", "-c", "dd if=/dev/zero of=/dev/null bs=256M count=1; exit $?").Run(); !errors.As(err, &exit) || !exit.OOM {
		t.Errorf("in a shell: %v, want it told of", err)
	}
	killed := sb.Command("sh", "-c", "kill -KILL $$")
	if err := killed.Run(); !errors.As(err, &exit) || exit.OOM {
		t.Errorf("killed by itself: %v, want no word of memory", err)
	}
	if err := bystander.Kill(); err != nil {
		t.Errorf("the bystander: %v", err)
	}
	if err := bystander.Wait(); !errors.As(err, &exit) {
		t.Errorf("the bystander: %v", err)
	}
	if err := sb.Err(); err != nil {
		t.Errorf("the sandbox has ended: %v", err)
	}
}
