package engine_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/lease"
)

// cleanupContext is for what happens after a test's own context is done.
func cleanupContext() context.Context { return context.Background() }

func init() {
	helpers["read"] = func(args []string) error { // <dir> <id>: reconnects, prints out.txt, closes
		ctx := context.Background()
		eng, err := engine.Open(ctx, engine.Options{Dir: args[0]})
		if err != nil {
			return err
		}
		defer eng.Close()
		sb, err := eng.Reconnect(ctx, args[1])
		if err != nil {
			return err
		}
		data, err := sb.FS().ReadFile("out.txt")
		if err != nil {
			return err
		}
		fmt.Printf("%q\n", data)
		return sb.Close()
	}
	helpers["create"] = func(args []string) error { // <dir> <keep-alive> <grace>: creates, prints ID and PID, waits
		ctx := context.Background()
		keepAlive, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		grace, err := time.ParseDuration(args[2])
		if err != nil {
			return err
		}
		eng, err := engine.Open(ctx, engine.Options{Dir: args[0]})
		if err != nil {
			return err
		}
		sb, err := eng.Create(ctx, engine.CreateOptions{KeepAlive: keepAlive, Grace: grace, Metadata: map[string]string{"by": "helper"}})
		if err != nil {
			return err
		}
		if err := sb.Command("sleep", "1000").Start(); err != nil {
			return err
		}
		pid, err := eng.AgentPID(sb.ID())
		if err != nil {
			return err
		}
		fmt.Println(sb.ID(), pid)
		untilClosed()
		return eng.Close()
	}
	helpers["hold"] = func(args []string) error { // <dir> <id>: reconnects, prints a line, waits, closes
		ctx := context.Background()
		eng, err := engine.Open(ctx, engine.Options{Dir: args[0]})
		if err != nil {
			return err
		}
		if _, err := eng.Reconnect(ctx, args[1]); err != nil {
			return err
		}
		fmt.Println("held")
		untilClosed()
		return eng.Close()
	}
}

// startCreate starts a helper that creates a sandbox.
func startCreate(t *testing.T, dir string, keepAlive, grace time.Duration) (p *process, id string, pid int) {
	t.Helper()
	p = start(t, "create", dir, keepAlive.String(), grace.String())
	if _, err := fmt.Sscan(p.line(t), &id, &pid); err != nil {
		t.Fatal(err)
	}
	return p, id, pid
}

// TestStory is the story of the package, on a file of the host's and with real programs.
func TestStory(t *testing.T) {
	t.Parallel()
	dir := stateDir(t)
	eng := open(t, dir)
	ctx := t.Context()
	input, err := os.ReadFile("/etc/services")
	if err != nil {
		t.Fatal(err)
	}
	sb := create(t, eng, engine.CreateOptions{Template: "base", Metadata: map[string]string{"user": "42"}})
	if err := sb.FS().WriteFile("services", input, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := sb.Command("sh", "-c", `awk '/^[a-z]/ {print $1}' services | sort -u > out.txt; wc -l < out.txt`).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for sc := bufio.NewScanner(strings.NewReader(string(input))); sc.Scan(); {
		if f := strings.Fields(sc.Text()); len(f) > 0 && f[0][0] >= 'a' && f[0][0] <= 'z' {
			want[f[0]] = true
		}
	}
	if got := strings.TrimSpace(string(out)); got != fmt.Sprint(len(want)) {
		t.Errorf("names in /etc/services: got %s, want %d", got, len(want))
	}
	if err := sb.KeepAlive(ctx, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := sb.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := sb.FS().ReadFile("out.txt")
	if !errors.Is(err, engine.ErrClosed) {
		t.Errorf("read on a closed handle: %q, %v, want ErrClosed", data, err)
	}

	p := start(t, "read", dir, sb.ID())
	line := p.line(t)
	if err := p.Wait(); err != nil {
		t.Errorf("second process: %v", err)
	}
	if got := strings.Count(line, `\n`); got != len(want) {
		t.Errorf("second process read %d lines, want %d", got, len(want))
	}

	again, err := eng.Reconnect(ctx, sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	l, err := again.Lease(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if l.State != lease.Running || l.Holders != 1 || l.Metadata["user"] != "42" || l.Template != "base" {
		t.Errorf("lease: got %+v, want it running with one holder and its metadata", l)
	}
	if left := time.Until(l.ExpiresAt); left < time.Minute || left > 2*time.Minute {
		t.Errorf("lease expires in %v, want somewhat less than 2m", left)
	}
	if err := again.KeepAlive(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if got := endReason(t, eng, sb.ID()); got != lease.Closed {
		t.Errorf("end reason: got %q, want %q", got, lease.Closed)
	}
	if _, err := eng.Reconnect(ctx, sb.ID()); !errors.Is(err, engine.ErrExpired) {
		t.Errorf("reconnect after the end: got %v, want ErrExpired", err)
	}
}

// TestHostKilled kills the process that made a sandbox, and holds it, by SIGKILL.
func TestHostKilled(t *testing.T) {
	t.Parallel()
	needRoot(t)

	t.Run("with keep-alive", func(t *testing.T) {
		t.Parallel()
		dir := stateDir(t)
		p, id, pid := startCreate(t, dir, time.Minute, 0)
		p.kill()
		eng := open(t, dir)
		sb, err := eng.Reconnect(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if !running(pid) {
			t.Error("the agent does not run")
		}
		out, err := sb.Command("sh", "-c", `cat /proc/[0-9]*/comm | grep -x sleep`).Output()
		if err != nil || len(out) == 0 {
			t.Errorf("the command of the killed process: %q, %v, want it running", out, err)
		}
		if err := sb.Kill(t.Context()); err != nil {
			t.Error(err)
		}
	})

	t.Run("with grace", func(t *testing.T) {
		t.Parallel()
		dir := stateDir(t)
		const grace = 2 * time.Second
		p, id, pid := startCreate(t, dir, 0, grace)
		eng := open(t, dir)
		killed := time.Now()
		p.kill()
		sb, err := eng.Reconnect(t.Context(), id)
		if err != nil {
			t.Fatalf("reconnect within the grace time: %v", err)
		}
		if err := sb.Close(); err != nil { // the grace time begins anew
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "the sandbox ends", func() bool { return !running(pid) })
		if lived := time.Since(killed); lived < grace {
			t.Errorf("the sandbox lived for %v, want %v at least", lived, grace)
		}
		eventually(t, 3*time.Second, "the lease ends", func() bool {
			l, err := eng.Lease(t.Context(), id)
			return err == nil && l.State == lease.Ended
		})
		if got := endReason(t, eng, id); got != lease.Expired {
			t.Errorf("end reason: got %q, want %q", got, lease.Expired)
		}
	})

	t.Run("with neither", func(t *testing.T) {
		t.Parallel()
		dir := stateDir(t)
		p, id, pid := startCreate(t, dir, 0, 0)
		sleep := childrenOf(t, pid)
		if len(sleep) == 0 {
			t.Error("the agent has no command to end with it")
		}
		p.kill()
		killed := time.Now()
		eventually(t, 5*time.Second, "its processes end", func() bool {
			for _, pid := range append(sleep, pid) {
				if running(pid) {
					return false
				}
			}
			return true
		})
		t.Logf("its processes were gone after %v", time.Since(killed))
		eng := open(t, dir)
		if names := sandboxesIn(dir); len(names) > 0 {
			t.Errorf("left after Open: %v", names)
		}
		if groups := cgroupsOf(t, id); len(groups) > 0 {
			t.Errorf("left after Open: %v", groups)
		}
		if got := endReason(t, eng, id); got != lease.Closed {
			t.Errorf("end reason: got %q, want %q", got, lease.Closed)
		}
	})

	t.Run("with neither, and another engine", func(t *testing.T) {
		t.Parallel()
		dir := stateDir(t)
		p, id, _ := startCreate(t, dir, 0, 0)
		open(t, dir)
		p.kill()
		killed := time.Now()
		eventually(t, 5*time.Second, "cgroup and directory are removed", func() bool {
			_, err := os.Lstat(filepath.Join(dir, "sandboxes", id))
			return len(cgroupsOf(t, id)) == 0 && err != nil
		})
		t.Logf("all was gone after %v", time.Since(killed))
	})
}

// childrenOf gives the host's numbers of a process's children.
func childrenOf(t *testing.T, pid int) (pids []int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range tasks {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range strings.Fields(string(data)) {
			var child int
			if _, err := fmt.Sscan(f, &child); err != nil {
				t.Fatal(err)
			}
			pids = append(pids, child)
		}
	}
	return pids
}
