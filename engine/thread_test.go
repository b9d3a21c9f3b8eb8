package engine_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/engine"
	"golang.org/x/sys/unix"
)

func init() {
	helpers["mainthread"] = func(args []string) error { // <dir>: creates from main, prints the process's namespaces and mounts
		before, err := namespaces()
		if err != nil {
			return err
		}
		ctx := context.Background()
		eng, err := engine.Open(ctx, engine.Options{Dir: args[0]})
		if err != nil {
			return err
		}
		for range 3 {
			sb, err := eng.Create(ctx, engine.CreateOptions{})
			if err != nil {
				return err
			}
			if err := sb.Close(); err != nil {
				return err
			}
		}
		after, err := namespaces()
		if err != nil {
			return err
		}
		fmt.Println(before == after)
		return eng.Close()
	}
}

// namespaces describes the namespaces and ids of the process, which are its main thread's, and whether cores are
// dumped of it.
func namespaces() (string, error) {
	var b strings.Builder
	for _, name := range []string{"mnt", "user", "net", "pid", "ipc", "uts", "cgroup"} {
		ns, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			return "", err
		}
		b.WriteString(ns + "\n")
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return "", err
	}
	fmt.Fprintln(&b, dumpable)
	status, err := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "Uid:") || strings.HasPrefix(line, "Cap") {
			b.WriteString(line)
		}
	}
	return b.String(), err
}

// TestMainThread creates sandboxes from a program's main function, again and again. Its main thread stays where
// it was: it could never come back.
func TestMainThread(t *testing.T) {
	t.Parallel()
	needRoot(t)
	runs := 40
	if testing.Short() {
		runs = 5
	}
	dir := stateDir(t)
	for range runs {
		p := start(t, "mainthread", dir)
		if got := p.line(t); got != "true" {
			t.Fatalf("the main thread's namespaces are what they were: %s", got)
		}
		if err := p.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}
