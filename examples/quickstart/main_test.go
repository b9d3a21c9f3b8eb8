package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestRun builds the program and runs it, as its reader would.
func TestRun(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("sandboxes need root: run the tests as root")
	}
	program := filepath.Join(t.TempDir(), "quickstart")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), "NESTBOX_DIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if want := "apple\nfig\npear\n"; err != nil || string(out) != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}
