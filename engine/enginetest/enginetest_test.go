package enginetest_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/engine/enginetest"
)

// asVar has TestAs do something, in a process of its own.
const asVar = "ENGINETEST_AS"

// TestAs is what the other tests run and look at from outside.
func TestAs(t *testing.T) {
	switch os.Getenv(asVar) {
	case "":
		t.Skip("it runs as a part of other tests")
	case "fail":
		sb := enginetest.New(t, engine.CreateOptions{Limits: engine.Limits{Processes: 32}})
		out, err := sb.Command("sh", "-c", "echo what it said; i=0; while [ $i -lt 60 ]; do sleep 1000 >/dev/null 2>&1 & i=$((i+1)); done").CombinedOutput()
		t.Errorf("on purpose: %q, %v", out, err)
	case "pass":
		sb := enginetest.New(t, engine.CreateOptions{})
		if err := sb.Command("true").Run(); err != nil {
			t.Error(err)
		}
	case "leave":
		sb := enginetest.New(t, engine.CreateOptions{KeepAlive: 60e9})
		if err := sb.Close(); err != nil {
			t.Error(err)
		}
	case "require":
		enginetest.Require(t, "flying")
		t.Error("it goes on")
	}
}

// as runs TestAs and gives its log.
func as(t *testing.T, what, required string) (log string, err error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestAs$", "-test.v")
	cmd.Env = append(os.Environ(), asVar+"="+what, enginetest.RequireVar+"="+required)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestNew(t *testing.T) {
	enginetest.Require(t, enginetest.Sandboxes)
	for _, tt := range []struct {
		as   string
		ok   bool
		want []string
	}{
		{"pass", true, []string{"PASS"}},
		{"fail", false, []string{"on purpose", "limit hit: processes", "what it said", "$ sh -c", "sleep 1000"}},
		{"leave", true, []string{"PASS"}}, // a handle that was closed is no reason to leave the sandbox
	} {
		t.Run(tt.as, func(t *testing.T) {
			log, err := as(t, tt.as, "all")
			if (err == nil) != tt.ok {
				t.Errorf("passed: %v, want %v", err == nil, tt.ok)
			}
			for _, want := range tt.want {
				if !strings.Contains(log, want) {
					t.Errorf("the log lacks %q:\n%s", want, log)
				}
			}
		})
	}
}

func TestRequire(t *testing.T) {
	for _, tt := range []struct {
		required string
		ok       bool
		want     string
	}{
		{"", true, "SKIP"},
		{"sandboxes", true, "SKIP"},
		{"sandboxes,flying", false, "no such feature"},
		{"all", false, "no such feature"},
	} {
		log, err := as(t, "require", tt.required)
		if (err == nil) != tt.ok || !strings.Contains(log, tt.want) {
			t.Errorf("with %q required: %v\n%s", tt.required, err, log)
		}
	}
}
