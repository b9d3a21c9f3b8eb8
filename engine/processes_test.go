package engine_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
)

// processes gives what runs, by PID.
func processes(t *testing.T, sb *engine.Sandbox) map[int]engine.Process {
	t.Helper()
	list, err := sb.Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(list, func(a, b engine.Process) int { return a.PID - b.PID }) {
		t.Errorf("not in the order of the PIDs: %v", list)
	}
	m := map[int]engine.Process{}
	for _, p := range list {
		m[p.PID] = p
	}
	return m
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{})
	if got := processes(t, sb); len(got) != 0 {
		t.Errorf("in a fresh sandbox: %v, want none", got)
	}
	before := time.Now()
	c := sb.Command("sh", "-c", "sleep 1000 & echo $!; read x", "a b", "", "c\nd")
	c.User, c.Dir, c.Spool = "nobody", "/", 1
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	readLine(t, out)
	sleep := awaitProcess(t, sb, "sleep", "sleeping")
	awaitProcess(t, sb, "sh", "sleeping")
	got := processes(t, sb)
	p := got[c.Pid()]
	if since := p.Start.Sub(before); since < -time.Second || since > 10*time.Second {
		t.Errorf("started %v after the test, want now", since)
	}
	p.Start = time.Time{}
	want := engine.Process{PID: c.Pid(), PPID: 1, Name: "sh", Args: c.Args, User: "nobody", State: "sleeping", Command: true, Attachable: true}
	if !equal(p, want) {
		t.Errorf("the command:\n got %+v\nwant %+v", p, want)
	}
	sleep.Start = time.Time{}
	want = engine.Process{PID: sleep.PID, PPID: c.Pid(), Name: "sleep", Args: []string{"sleep", "1000"}, User: "nobody", State: "sleeping"}
	if !equal(sleep, want) {
		t.Errorf("its child:\n got %+v\nwant %+v", sleep, want)
	}
	if err := c.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	awaitProcess(t, sb, "sh", "stopped")
	if err := c.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	awaitProcess(t, sb, "sh", "ended") // and is remembered until it is waited for
	other, err := eng.Reconnect(t.Context(), sb.ID())
	if err != nil {
		t.Fatal(err)
	}
	if p := processes(t, other)[c.Pid()]; p.State != "ended" || !p.Command || !p.Attachable || p.User != "nobody" || p.Name != "sh" {
		t.Errorf("the command that has ended, by another handle: %+v", p)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	_ = sb.Command("kill", "-9", "--", strconv.Itoa(-c.Pid())).Run()
	_ = c.Wait()
	eventually(t, 10*time.Second, "none is left", func() bool { return len(processes(t, sb)) == 0 })
	if err := sb.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := sb.Processes(t.Context()); !errors.Is(err, engine.ErrEnded) && !errors.Is(err, engine.ErrClosed) {
		t.Errorf("of a closed handle: %v", err)
	}
}

func equal(a, b engine.Process) bool {
	return slices.Equal(a.Args, b.Args) && func() bool {
		a.Args, b.Args = nil, nil
		return a.PID == b.PID && a.PPID == b.PPID && a.Name == b.Name && a.User == b.User && a.Start.Equal(b.Start) &&
			a.State == b.State && a.Command == b.Command && a.Attachable == b.Attachable
	}()
}

// TestProcessesMany has more processes than a message takes, with long arguments and names made to mislead.
func TestProcessesMany(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	const n = 200
	name := ") R 1 (\n x"
	if err := sb.FS().WriteFile("/tmp/"+name, []byte("#!/bin/sh\necho ready; read x\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	pids := map[int]bool{}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for range n {
		c := sb.Command("/tmp/"+name, strings.Repeat("long ", 2000))
		c.Stdin = r
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		readLine(t, out)
		pids[c.Pid()] = true
		defer func() { _ = c.Kill(); _ = c.Wait() }()
	}
	got := processes(t, sb)
	if len(got) != n {
		t.Errorf("got %d processes, want %d", len(got), n)
	}
	for pid := range pids {
		p := got[pid]
		if p.Name != name || p.PPID != 1 || p.State != "sleeping" || !p.Command || p.Attachable || len(strings.Join(p.Args, "")) < 1000 {
			t.Fatalf("process %d: %.300s", pid, fmt.Sprintf("%+v", p))
		}
	}
}
