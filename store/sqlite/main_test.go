package sqlite_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// helperVar names the helper that this program is to be, in the place of running tests.
const helperVar = "NESTBOX_TEST_HELPER"

// helpers are what a second process of a test does. Each is given its arguments, prints lines, and its error
// is the process's end.
var helpers = map[string]func(args []string) error{}

func TestMain(m *testing.M) {
	name := os.Getenv(helperVar)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := helpers[name](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// process is a second process of a test.
type process struct {
	*exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

// helper gives a helper to start.
func helper(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command("/proc/self/exe", args...)}
	p.Env = append(os.Environ(), helperVar+"="+name)
	p.Stderr = os.Stderr
	var err error
	if p.stdin, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(stdout)
	return p
}

// start starts a helper. It is killed at the test's end if it still runs.
func (p *process) start(t *testing.T) *process {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

// line reads the next line that the helper prints.
func (p *process) line(t *testing.T) string {
	t.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("reading from helper: %v", err)
	}
	return strings.TrimSuffix(s, "\n")
}

// kill ends the helper by SIGKILL.
func (p *process) kill() {
	_ = p.Process.Kill()
	_ = p.Wait()
}
