package engine_test

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/nestbox/nestbox/engine"
)

// TestAbstractSockets keeps a sandbox that has the host's network from the host's abstract sockets, and not from its
// own. It needs a kernel with Landlock's scopes, as Probe tells.
func TestAbstractSockets(t *testing.T) {
	needScopes(t)
	const name = "@nestbox-test-host"
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go echo(l)

	opts := withProgram(t)
	opts.Network = engine.NetworkHost
	sb := create(t, open(t, ""), opts)
	if c, err := sb.DialContext(t.Context(), "unix", name); !errors.Is(err, syscall.EPERM) {
		t.Errorf("dial from inside: %v, %v, want EPERM", c, err)
	}
	send := func(name string) (string, error) {
		c := inside(t, sb, "send", "unix", name, "x")
		c.Stderr = nil
		out, err := c.CombinedOutput()
		return string(out), err
	}
	out, err := send(name)
	if err == nil || !strings.Contains(out, syscall.EPERM.Error()) {
		t.Errorf("a command of the sandbox that connects: %q, %v, want EPERM", out, err)
	}
	addr, _ := startInside(t, sb, "echo", "unix", "@nestbox-test-guest")
	for range 8 { // by different threads of the agent
		if out, err := send(addr); err != nil || out != "x" {
			t.Errorf("a command that connects to another: %q, %v", out, err)
		}
	}
}

func needScopes(t *testing.T) {
	t.Helper()
	for _, f := range engine.Probe(t.Context()).Features {
		if f.Name == "landlock scopes" && f.Support != engine.Supported {
			t.Skipf("%s: %s", f.Reason, f.Remedy)
		}
	}
}

// TestLabels: what can't be applied is an error, and no sandbox without it. Where a module is enabled its profile
// isn't loaded, which is an error too.
func TestLabels(t *testing.T) {
	eng := open(t, "")
	for _, opts := range []engine.CreateOptions{{AppArmor: "nestbox-missing"}, {SELinux: "nestbox:missing:label"}} {
		sb, err := eng.Create(t.Context(), opts)
		if err == nil {
			t.Errorf("Create(%+v) made %s", opts, sb.ID())
			_ = sb.Close()
		}
		if errors.Is(err, errors.ErrUnsupported) && !strings.Contains(err.Error(), "missing") {
			t.Errorf("Create: %v doesn't name the label", err)
		}
	}
}
