//go:build linux

package agent_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/agent"
	"github.com/nestbox/nestbox/engine/internal/wire"
	"github.com/nestbox/nestbox/fsapi"
	"golang.org/x/sys/unix"
)

// fake is an agent that was taken over. It answers each request, but those to begin a watch, by what reply adds to
// the answer and the files it gives. Of a watch it sends what events makes.
type fake struct {
	reply  func(*wire.Message)
	files  []*os.File
	events func(*wire.Message)
}

// dialFake connects to f.
func dialFake(t *testing.T, f *fake) *agent.Client { return dial(t, f.answer) }

func (f *fake) answer(conn *wire.Conn, q request) error {
	m := reply(q.id)
	if q.op == wire.OpWatch {
		events := wire.New(nil, wire.OpWatch, 0)
		f.events(events)
		if err := unix.Sendmsg(q.fds[0], events.Bytes(), nil, nil, 0); err != nil {
			return err
		}
		return conn.Send(m.Bytes())
	}
	if f.reply != nil {
		f.reply(m)
	}
	var send []int
	for _, file := range f.files {
		send = append(send, int(file.Fd()))
	}
	return conn.Send(m.Bytes(), send...)
}

func openFile(t *testing.T, name string, flag int) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// Descriptors that are no files, or are to write what is the kernel's, are not taken.
func TestDescriptors(t *testing.T) {
	file := openFile(t, filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	tests := []struct {
		name  string
		files []*os.File
		ok    bool
	}{
		{"a file", []*os.File{file}, true},
		{"a directory", []*os.File{openFile(t, "/", os.O_RDONLY)}, true},
		{"a file of proc to read", []*os.File{openFile(t, "/proc/self/comm", os.O_RDONLY)}, true},
		{"a file of proc to write", []*os.File{openFile(t, "/proc/self/comm", os.O_RDWR)}, false},
		{"none", nil, false},
		{"two", []*os.File{file, file}, false},
		{"a pipe", []*os.File{r}, false},
		{"a device", []*os.File{openFile(t, "/dev/null", os.O_RDWR)}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			open := dialFake(t, &fake{files: tt.files, reply: func(m *wire.Message) { wire.Stat{}.Put(m) }})
			f, err := open.Open("name", os.O_RDWR, 0)
			if err == nil != tt.ok {
				t.Errorf("Open: %v", err)
			}
			if err == nil {
				_ = f.Close()
			}
			place := dialFake(t, &fake{files: tt.files})
			f, err = place.Place(file, fsapi.Place{Kind: wire.PlaceFile})
			if err == nil != tt.ok {
				t.Errorf("Place: %v", err)
			}
			if err == nil {
				_ = f.Close()
			}
			if f, err := place.Place(file, fsapi.Place{Kind: wire.PlaceSymlink}); f != nil || err == nil != (len(tt.files) == 0) {
				t.Errorf("Place of a link: %v, %v", f, err)
			}
		})
	}
}

// Events are what they may be, or an error.
func TestEvents(t *testing.T) {
	event := func(name string) func(*wire.Message) {
		return func(m *wire.Message) { wire.WatchEvent{WD: 1, Mask: 2, Name: name}.Put(m) }
	}
	tests := []struct {
		name   string
		events func(*wire.Message)
		ok     bool
	}{
		{"an event", event("name\n\xff"), true},
		{"of the directory", event(""), true},
		{"of a path", event("a/b"), false},
		{"of dot dot", event(".."), false},
		{"with a NUL", event("a\x00"), false},
		{"cut off", func(m *wire.Message) { m.Int(1).Uint(2).Uint(200) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // each waits for what is never told
			w, err := dialFake(t, &fake{events: tt.events}).Watch()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			list, err := w.Next()
			if err == nil != tt.ok || tt.ok && len(list) != 1 {
				t.Errorf("Next: %v, %v", list, err)
			}
			if _, err := w.Next(); err == nil {
				t.Error("the agent has closed its end: no error")
			}
		})
	}
}

// What is answered to a request without an answer is an error.
func TestAnswers(t *testing.T) {
	c := dialFake(t, &fake{reply: func(m *wire.Message) { m.Uint(1) }})
	file := openFile(t, "/", os.O_RDONLY)
	if err := c.SetAttr(file, fsapi.Attr{}); err == nil {
		t.Error("SetAttr with an answer that is too long: no error")
	}
	if err := c.Truncate("f", 1); err == nil {
		t.Error("Truncate with an answer that is too long: no error")
	}
}
