package wire_test

import (
	"encoding/binary"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// A putter is a message's body.
type putter interface{ Put(*wire.Message) }

// reading is a Read function of the package, for any type.
func reading[T any](f func(*wire.Reader) T) func(*wire.Reader) any {
	return func(r *wire.Reader) any { return f(r) }
}

// bodies are the types of messages' bodies, with values that each must survive.
var bodies = []struct {
	name   string
	read   func(*wire.Reader) any
	values []putter
}{
	{"Config", reading(wire.ReadConfig), []putter{
		wire.Config{},
		wire.Config{User: "user", Dir: "/work", Env: []string{"A=1", "", "B=\x00\xff"}, OpenFiles: 1024, Grace: time.Second, KeepAlive: time.Hour, Seccomp: "\x06\x00\x00\x00\x00\x00\xff\x7f", SeccompFlags: 2},
		wire.Config{OpenFiles: math.MaxUint64, Grace: math.MinInt64, KeepAlive: math.MaxInt64, SeccompFlags: math.MaxUint32},
	}},
	{"Info", reading(wire.ReadInfo), []putter{
		wire.Info{},
		wire.Info{Dir: "/home/user", Env: []string{"PATH=/bin", "HOME=/"}, Epoch: 3},
	}},
	{"Command", reading(wire.ReadCommand), []putter{
		wire.Command{},
		wire.Command{Path: "sh", Args: []string{"sh", "-c", "echo \"é\"\n"}, Env: []string{"A=1"}, Inherit: true, Dir: "/", User: "1:2", Stdio: 7},
		wire.Command{Args: []string{""}, Env: []string{"", ""}, Stdio: math.MaxUint8},
		wire.Command{Path: strings.Repeat("p", wire.MaxMessage)},
		wire.Command{Path: "top", Spool: math.MaxUint64, PTY: true, Rows: 24, Cols: math.MaxUint16},
	}},
	{"Exit", reading(wire.ReadExit), []putter{
		wire.Exit{},
		wire.Exit{Status: 9, User: time.Millisecond, Sys: 1, MaxRSSKiB: 1 << 20},
		wire.Exit{Status: math.MaxUint32, User: math.MaxInt64, Sys: -1, MaxRSSKiB: math.MaxUint64},
	}},
	{"Socket", reading(wire.ReadSocket), []putter{
		wire.Socket{},
		wire.Socket{Net: "tcp6", IP: "\x00\x01\xff", Port: math.MaxUint16, Zone: math.MaxUint32, Dual: true},
		wire.Socket{Net: "unix", Path: "@\x00a/b"},
	}},
	{"Stat", reading(wire.ReadStat), []putter{
		wire.Stat{},
		wire.Stat{Dev: 1, Ino: 2, Nlink: 3, Rdev: 4, Mode: 5, UID: 6, GID: 7, Size: 8, Blksize: 9, Blocks: 10, Atime: 11, Mtime: 12, Ctime: 13},
		wire.Stat{Dev: math.MaxUint64, Mode: math.MaxUint32, UID: math.MaxUint32, Size: math.MaxInt64, Atime: math.MinInt64, Ctime: -1},
	}},
	{"Process", reading(wire.ReadProcess), []putter{
		wire.Process{},
		wire.Process{PID: 2, PPID: 1, Name: "a) b", Args: []string{"sh", ""}, User: "root", Start: -1, State: 'S', Command: true, Attachable: true},
	}},
	{"Place", reading(wire.ReadPlace), []putter{
		wire.Place{},
		wire.Place{Name: "a/b\n\xff", Kind: wire.PlaceSymlink, Target: "../c", Attr: wire.Attr{Mode: 0o644, UID: -1, GID: 1000, Atime: wire.LeaveTime, Mtime: 1}},
		wire.Place{Kind: math.MaxUint8, Attr: wire.Attr{Mode: -1, UID: math.MaxInt64, GID: math.MinInt64, Mtime: math.MaxInt64}},
	}},
	{"WatchEvent", reading(wire.ReadWatchEvent), []putter{
		wire.WatchEvent{},
		wire.WatchEvent{WD: 7, Mask: 1 << 30, Name: "a\x00b"},
		wire.WatchEvent{WD: -1, Mask: math.MaxUint32, Name: strings.Repeat("n", 255)},
	}},
}

// header is a message without a body.
func header() []byte { return wire.New(nil, wire.OpReply, 7).Bytes() }

// encode makes a message of a body.
func encode(p putter) []byte {
	m := wire.New(nil, wire.OpReply, 7)
	p.Put(m)
	return m.Bytes()
}

func TestRoundTrip(t *testing.T) {
	for _, body := range bodies {
		t.Run(body.name, func(t *testing.T) {
			for _, want := range body.values {
				b := encode(want)
				op, id, r, err := wire.Read(b)
				if err != nil || op != wire.OpReply || id != 7 {
					t.Fatalf("Read = %d, %d, %v, want OpReply, 7", op, id, err)
				}
				got := body.read(r)
				if err := r.Done(); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("read %.200v, %v, want %.200v", got, err, want)
				}
				clear(b) // what was read shares no memory with the message
				if !reflect.DeepEqual(got, want) {
					t.Errorf("read %.200v when the message was gone, want %.200v", got, want)
				}
			}
		})
	}
}

// Of a message that was cut off anywhere, or has a byte too much, nothing is taken for whole.
func TestCutOff(t *testing.T) {
	for _, body := range bodies {
		t.Run(body.name, func(t *testing.T) {
			b := encode(body.values[1])
			for n := range len(b) {
				_, _, r, err := wire.Read(b[:n])
				if err == nil {
					body.read(r)
					err = r.Done()
				}
				if err != wire.ErrMessage {
					t.Errorf("the first %d of %d bytes: %v, want ErrMessage", n, len(b), err)
				}
			}
			_, _, r, err := wire.Read(append(b, 0))
			if err != nil {
				t.Fatal(err)
			}
			body.read(r)
			if r.Err() != nil || !r.More() {
				t.Errorf("with a byte more: %v, More %v, want none, true", r.Err(), r.More())
			}
			if err := r.Done(); err != wire.ErrMessage {
				t.Errorf("with a byte more: %v, want ErrMessage", err)
			}
		})
	}
}

func TestFields(t *testing.T) {
	m := wire.New(make([]byte, 3, 100), wire.OpStart, math.MaxUint32)
	m.Uint(0).Uint(math.MaxUint64).Int(math.MinInt64).Int(-1).Bool(true).Bool(false).Text("").Text("a\x00b").Texts(nil).Texts([]string{"x", ""})
	op, id, r, err := wire.Read(m.Bytes())
	if err != nil || op != wire.OpStart || id != math.MaxUint32 {
		t.Fatalf("Read = %d, %d, %v", op, id, err)
	}
	got := []any{r.Uint(), r.Uint(), r.Int(), r.Int(), r.Bool(), r.Bool(), r.Text(), r.Text(), r.Texts(), r.Texts()}
	want := []any{uint64(0), uint64(math.MaxUint64), int64(math.MinInt64), int64(-1), true, false, "", "a\x00b", []string(nil), []string{"x", ""}}
	if err := r.Done(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %q, %v, want %q", got, err, want)
	}
}

func TestEpoch(t *testing.T) {
	m := wire.New(nil, wire.OpStart, 1).Text("a")
	if n := wire.Epoch(m.Bytes()); n != 0 {
		t.Errorf("a message's epoch is %d, want 0", n)
	}
	for _, epoch := range []uint8{1, math.MaxUint8, 0} {
		b := m.In(epoch).Bytes()
		op, id, r, err := wire.Read(b)
		if err != nil || wire.Epoch(b) != epoch || op != wire.OpStart || id != 1 || r.Text() != "a" || r.Done() != nil {
			t.Errorf("epoch is %d, want %d; Read = %d, %d, %v", wire.Epoch(b), epoch, op, id, err)
		}
	}
}

// Uvarints for the table below.
var (
	huge    = binary.AppendUvarint(nil, math.MaxUint64)
	million = binary.AppendUvarint(nil, 1<<20)
)

func TestMalformed(t *testing.T) {
	text := func(r *wire.Reader) any { return r.Text() }
	texts := func(r *wire.Reader) any { return r.Texts() }
	number := func(r *wire.Reader) any { return r.Uint() }
	signed := func(r *wire.Reader) any { return r.Int() }
	tests := []struct {
		name string
		body []byte
		read func(*wire.Reader) any
	}{
		{"no number", nil, number},
		{"number without an end", []byte{0x80}, number},
		{"number of ten bytes without an end", slices.Repeat([]byte{0xff}, 10), number},
		{"number over 64 bits", append(slices.Repeat([]byte{0xff}, 9), 2), number},
		{"number of too many bytes", append(slices.Repeat([]byte{0x80}, 11), 0), number},
		{"no signed number", nil, signed},
		{"signed number without an end", []byte{0xff, 0xff}, signed},
		{"no text", nil, text},
		{"text a byte short", []byte{3, 'a', 'b'}, text},
		{"text of a length without an end", []byte{0x83, 'a' | 0x80}, text},
		{"text of 1 MiB", append(slices.Clone(million), 'a'), text},
		{"text of 2⁶⁴-1 bytes", append(slices.Clone(huge), 'a'), text},
		{"no list", nil, texts},
		{"list without its texts", []byte{2, 1, 'a'}, texts},
		{"list of 1 Mi texts", append(slices.Clone(million), 0, 0, 0), texts},
		{"list of 2⁶⁴-1 texts", append(slices.Clone(huge), 0, 0, 0), texts},
		{"list with a text of 2⁶⁴-1 bytes", slices.Concat([]byte{2, 0}, huge), texts},
		{"Config of nothing", nil, reading(wire.ReadConfig)},
		{"Config with 1 Mi variables", slices.Concat([]byte{0, 0}, million, []byte{0}), reading(wire.ReadConfig)},
		{"Info with a Dir of 1 MiB", slices.Concat(million, []byte{0, 0}), reading(wire.ReadInfo)},
		{"Command with 2⁶⁴-1 Args", slices.Concat([]byte{0}, huge, []byte{0, 0, 0, 0, 0}), reading(wire.ReadCommand)},
		{"Exit of one number", []byte{1}, reading(wire.ReadExit)},
		{"Stat of twelve numbers", make([]byte, 12), reading(wire.ReadStat)},
		{"Process with 2⁶⁴-1 Args", slices.Concat([]byte{2, 1, 0}, huge, []byte{0, 0, 0, 0, 0}), reading(wire.ReadProcess)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := append(header(), tt.body...)
			if err := readBy(b, tt.read); err != wire.ErrMessage {
				t.Fatalf("error is %v, want ErrMessage", err)
			}
			if n := allocated(func() { _ = readBy(b, tt.read) }); n > 1<<10 {
				t.Errorf("allocates %d bytes for a message of %d", n, len(b))
			}
		})
	}
	for n := range header() {
		if _, _, _, err := wire.Read(header()[:n]); err != wire.ErrMessage {
			t.Errorf("Read of %d bytes: %v, want ErrMessage", n, err)
		}
	}
}

// readBy reads a message and tells how that went.
func readBy(b []byte, read func(*wire.Reader) any) error {
	_, _, r, err := wire.Read(b)
	if err != nil {
		return err
	}
	read(r)
	return r.Done()
}

// allocated is how many bytes a call of f allocates.
func allocated(f func()) uint64 {
	const runs = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / runs
}

// After the first field that isn't there all are zero, whatever is left of the message.
func TestReaderStays(t *testing.T) {
	b := append(wire.New(nil, wire.OpReply, 1).Text("a").Bytes(), 9, 'b', 1, 1, 1, 1)
	_, _, r, err := wire.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Text(); s != "a" || r.Err() != nil {
		t.Errorf("Text() = %q, %v, want a", s, r.Err())
	}
	for range 2 {
		if s, list, u, i, b := r.Text(), r.Texts(), r.Uint(), r.Int(), r.Bool(); s != "" || list != nil || u != 0 || i != 0 || b {
			t.Errorf("read %q, %q, %d, %d, %v after a field that isn't there", s, list, u, i, b)
		}
		if r.Err() != wire.ErrMessage || r.Done() != wire.ErrMessage || r.More() {
			t.Errorf("Err() = %v, Done() = %v, More() = %v, want ErrMessage twice, false", r.Err(), r.Done(), r.More())
		}
	}
}

func TestClone(t *testing.T) {
	b := wire.New(nil, wire.OpReply, 1).Uint(5).Text("rest").Bytes()
	_, _, r, err := wire.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	r.Uint()
	c := wire.Clone(r)
	clear(b)
	if s := c.Text(); s != "rest" || c.Done() != nil {
		t.Errorf("Text() = %q, %v, want what was left to read", s, c.Done())
	}
	if wire.Clone(c).More() || !r.More() {
		t.Error("a Reader and its clone move together")
	}
}
