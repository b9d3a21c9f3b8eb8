package wire_test

import (
	"reflect"
	"testing"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// fuzzRead checks that what can be read of any bytes can be written and read again, and that the rest is
// ErrMessage. The seeds are in testdata.
func fuzzRead[T putter](f *testing.F, read func(*wire.Reader) T) {
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, r, err := wire.Read(b)
		if err != nil {
			if err != wire.ErrMessage || len(b) >= 5 {
				t.Errorf("Read of %d bytes: %v", len(b), err)
			}
			return
		}
		got := read(r)
		if err := r.Done(); err != nil {
			if err != wire.ErrMessage {
				t.Errorf("Done: %v, want ErrMessage", err)
			}
			return
		}
		_, _, r, err = wire.Read(encode(got))
		if err != nil {
			t.Fatal(err)
		}
		if again := read(r); r.Done() != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("read %v, and from that %v, %v", got, again, r.Err())
		}
	})
}

func FuzzReadConfig(f *testing.F)  { fuzzRead(f, wire.ReadConfig) }
func FuzzReadInfo(f *testing.F)    { fuzzRead(f, wire.ReadInfo) }
func FuzzReadCommand(f *testing.F) { fuzzRead(f, wire.ReadCommand) }
func FuzzReadExit(f *testing.F)    { fuzzRead(f, wire.ReadExit) }
func FuzzReadStat(f *testing.F)    { fuzzRead(f, wire.ReadStat) }
func FuzzReadPlace(f *testing.F)   { fuzzRead(f, wire.ReadPlace) }

func FuzzReadWatchEvent(f *testing.F) { fuzzRead(f, wire.ReadWatchEvent) }
