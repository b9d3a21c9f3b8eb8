package engine_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/engine"
)

// TestPriority looks at the priorities of the agent's threads, which are above those of all that it starts, in each way
// to start something. The guest can't raise its own.
func TestPriority(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{})
	pid := agentPID(t, eng, sb.ID())
	const own = "0"
	ordinary := 0
	for _, tid := range list(t, fmt.Sprintf("/proc/%d/task", pid)) {
		switch got := niceOf(t, fmt.Sprintf("/proc/%d/task/%s/stat", pid, tid)); got {
		case "-20":
		case own:
			ordinary++
		default:
			t.Errorf("thread %s: nice %s, want -20", tid, got)
		}
	}
	if ordinary > 2 { // that were on their way when the others were looked at
		t.Errorf("%d of the agent's threads have the ordinary priority", ordinary)
	}
	const script = "cut -d' ' -f19 /proc/self/stat; nice -n -1 true 2>&1"
	for _, user := range []string{"root", "user"} {
		c := sb.Command("sh", "-c", script)
		c.User, c.Dir = user, "/"
		if out, err := c.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), own+"\n") || !strings.Contains(string(out), "cannot set niceness") {
			t.Errorf("command of %s: %q, %v, want nice %s that can't be lowered", user, out, err, own)
		}
	}
	terminal := sb.Command("cut", "-d ", "-f19", "/proc/self/stat")
	tty, err := terminal.StartPTY(engine.WindowSize{})
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	buf := make([]byte, 16)
	if n, err := tty.Read(buf); err != nil || strings.TrimSpace(string(buf[:n])) != own {
		t.Errorf("command on a terminal: nice %q, %v, want %s", buf[:n], err, own)
	}
	if err := terminal.Wait(); err != nil {
		t.Error(err)
	}
}

// niceOf reads the nice value of proc_pid_stat(5).
func niceOf(t *testing.T, stat string) string {
	t.Helper()
	data, err := os.ReadFile(stat)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return strings.Fields(rest)[16]
}
