package wire_test

import (
	"reflect"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// fuzzRead checks that what can be read of any body can be written and read again, and that the rest is
// ErrMessage. Seeds that are malformed are in testdata.
func fuzzRead[T putter](f *testing.F, read func(*wire.Reader) T) {
	for _, body := range bodies {
		for _, v := range body.values {
			if _, ok := v.(T); ok {
				f.Add(encode(v)[len(header()):])
			}
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := decode(t, append(header(), body...), read)
		if err != nil {
			if err != wire.ErrMessage {
				t.Errorf("error is %v, want ErrMessage", err)
			}
			return
		}
		if again, err := decode(t, encode(got), read); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("read %v, and from that %v, %v", got, again, err)
		}
	})
}

func decode[T any](t *testing.T, b []byte, read func(*wire.Reader) T) (T, error) {
	_, _, r, err := wire.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return read(r), r.Done()
}

func FuzzReadConfig(f *testing.F)  { fuzzRead(f, wire.ReadConfig) }
func FuzzReadInfo(f *testing.F)    { fuzzRead(f, wire.ReadInfo) }
func FuzzReadCommand(f *testing.F) { fuzzRead(f, wire.ReadCommand) }
func FuzzReadExit(f *testing.F)    { fuzzRead(f, wire.ReadExit) }
func FuzzReadStat(f *testing.F)    { fuzzRead(f, wire.ReadStat) }
func FuzzReadSocket(f *testing.F)  { fuzzRead(f, wire.ReadSocket) }
func FuzzReadProcess(f *testing.F) { fuzzRead(f, wire.ReadProcess) }
func FuzzReadPlace(f *testing.F)   { fuzzRead(f, wire.ReadPlace) }

func FuzzReadWatchEvent(f *testing.F) { fuzzRead(f, wire.ReadWatchEvent) }
