//go:build linux

package engine_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/wire"
)

// TestUnread has a handle start a command that takes no answers. What it started is reaped all the same.
func TestUnread(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	eng := open(t, dir)
	sb := create(t, eng, engine.CreateOptions{})
	d, err := os.Open(filepath.Join(dir, "sandboxes", sb.ID()))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	conn, err := wire.Dial(d, agent.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	id := uint32(0)
	send := func(op wire.Op, cmd *wire.Command) {
		t.Helper()
		id++
		m := wire.New(nil, op, id)
		if cmd != nil {
			cmd.Put(m)
		}
		if err := conn.Send(m.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	send(wire.OpHold, nil)
	for range 3000 { // more than its queue takes
		send(wire.OpStart, &wire.Command{Path: "/bin/true", Args: []string{"true"}, Inherit: true})
	}
	send(wire.OpStart, &wire.Command{Path: "/bin/mkdir", Args: []string{"mkdir", "/tmp/last"}, Inherit: true})
	eventually(t, time.Minute, "all were started", func() bool {
		_, err := sb.FS().Stat("/tmp/last")
		return err == nil
	})
	eventually(t, 10*time.Second, "all are reaped", func() bool { return len(processes(t, sb)) == 0 })
}
