package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRun builds the program and runs it, as its reader would.
func TestRun(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("sandboxes need root: run the tests as root")
	}
	program := filepath.Join(t.TempDir(), "reconnect")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	dir := t.TempDir()
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "NESTBOX_DIR="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	rest := string(out)
	for _, step := range []string{"first ", "created ", `wc says "12 hello.txt\n"`, "kept alive", "the sandbox stays",
		"second ", "reconnected", `read "Hello World!"`, "map[user:42]", "the sandbox is gone"} {
		var ok bool
		if _, rest, ok = strings.Cut(rest, step); !ok {
			t.Fatalf("no step %q, or not in its place:\n%s", step, out)
		}
	}
	left, err := os.ReadDir(filepath.Join(dir, "sandboxes"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
