package wire_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// FuzzBody checks that what can be read of any message's body, of each type, can be written and read again, that
// nothing of it can be left out, and that the rest is ErrMessage. It is what a host reads of a hostile agent, and
// an agent of whoever has its socket.
func FuzzBody(f *testing.F) {
	for i, body := range bodies {
		for _, v := range body.values {
			f.Add(uint8(i), encode(v)[len(header()):], uint16(0))
		}
		f.Add(uint8(i), append(encode(body.values[1])[len(header()):], 0), uint16(1))
		f.Add(uint8(i), append(slices.Clone(huge), 'a'), uint16(2))
	}
	f.Fuzz(func(t *testing.T, kind uint8, content []byte, cut uint16) {
		read := bodies[int(kind)%len(bodies)].read
		b := append(header(), content...)
		got, err := decode(t, b, read)
		if err != nil {
			if err != wire.ErrMessage {
				t.Errorf("error is %v, want ErrMessage", err)
			}
			return
		}
		clear(b)
		written := encode(got.(putter))
		if len(written) > len(b) {
			t.Errorf("%d bytes became %d", len(b), len(written))
		}
		if again, err := decode(t, written, read); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("read %v, and from that %v, %v", got, again, err)
		}
		if n := len(header()) + int(cut)%len(content); n < len(b) {
			if got, err := decode(t, append(header(), content[:n-len(header())]...), read); err != wire.ErrMessage {
				t.Errorf("the first %d of %d bytes: %v, %v, want ErrMessage", n, len(b), got, err)
			}
		}
	})
}

func decode(t *testing.T, b []byte, read func(*wire.Reader) any) (any, error) {
	_, _, r, err := wire.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return read(r), r.Done()
}

// FuzzFields checks that what is written is what is read, whatever it is, and only of the whole message.
func FuzzFields(f *testing.F) {
	f.Add(uint8(1), uint8(0), uint32(7), uint64(0), int64(-1), true, "", "a\x00\xff", uint16(9))
	f.Add(uint8(255), uint8(255), ^uint32(0), ^uint64(0), int64(-1)<<63, false, "name", "", uint16(6))
	f.Fuzz(func(t *testing.T, op, epoch uint8, id uint32, u uint64, i int64, truth bool, text, more string, cut uint16) {
		list := []string{more, text, ""}
		b := wire.New(nil, wire.Op(op), id).In(epoch).Uint(u).Int(i).Bool(truth).Text(text).Texts(list).Texts(nil).Bytes()
		read := func(b []byte) ([]any, error) {
			gotOp, gotID, r, err := wire.Read(b)
			if err != nil {
				return nil, err
			}
			got := []any{gotOp, wire.Epoch(b), gotID, r.Uint(), r.Int(), r.Bool(), r.Text(), r.Texts(), r.Texts()}
			return got, r.Done()
		}
		want := []any{wire.Op(op), epoch, id, u, i, truth, text, list, []string(nil)}
		if got, err := read(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("read %q, %v, want %q", got, err, want)
		}
		if _, err := read(b[:int(cut)%len(b)]); err != wire.ErrMessage {
			t.Errorf("the first %d of %d bytes: %v, want ErrMessage", int(cut)%len(b), len(b), err)
		}
	})
}
