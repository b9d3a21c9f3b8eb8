// Package wire is the protocol between a host and the agent in a sandbox: messages of
// bounded size on a unix SEQPACKET socket, some of them with descriptors.
//
// A message is an operation (one byte), its epoch (one byte), the number of the request it belongs to (four
// bytes, little endian) and fields: unsigned varints, and strings that carry their length. A request is answered by
// one OpReply with its number; OpExit follows later for a command that was started. Both ends take the
// other for hostile: a message that can't be read ends the connection, and nothing is allocated on the
// word of a length alone.
package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Protocol is the version of the messages. A sandbox outlives the program that made it, and may meet a handle of
// another version of this package: change it with every change of a message, or of the order of operations.
const Protocol = 2

const (
	// MaxMessage is the size of the largest message, in bytes.
	MaxMessage = 64 << 10
	// MaxSpill is the size of the largest message that travels in a file, in bytes; see OpSpilled.
	MaxSpill = 4 << 20
	// MaxFiles is how many descriptors a message may carry.
	MaxFiles = 8

	headerSize = 6
)

// Op says what a message asks or tells.
type Op uint8

// The operations. Requests go to the agent; OpReply and OpExit come back.
const (
	OpReply   Op = iota + 1 // errno, stage, then what the request's operation answers
	OpExit                  // wait status, user and system time in ns, largest resident set in KiB
	OpSpilled               // a message too large for the socket is in the file that is sent along

	OpHold      // fresh agent: Config; else nothing → Info
	OpStatus    // → holders, remaining ns (0: none)
	OpRelease   // → 1 if this ended the sandbox
	OpKeepAlive // ns; → remaining ns
	OpExtend    // ns; → remaining ns

	OpStart  // Command, with descriptors → pid
	OpSignal // request number of the OpStart, signal, 1: to its process group

	OpOpen      // name, flags, permission → Stat and a descriptor
	OpReadDir   // with a directory's descriptor → entries until none is left
	OpFstat     // with a descriptor → Stat
	OpStat      // name, 1: don't follow a link → Stat
	OpReadlink  // name → target
	OpMkdir     // name, permission
	OpMkdirAll  // name, permission
	OpRemove    // name
	OpRemoveAll // name
	OpRename    // old, new
	OpSymlink   // name, target
	OpChmod     // name, mode
	OpChown     // name, uid, gid

	OpPause   // begins another epoch; the sandbox may be frozen after the answer
	OpPaused  // to each handle: what it sent and got no answer to is not done
	OpResume  // ns until the deadline, 0: none; the sandbox has been thawed
	OpResumed // to each handle: epoch, of what it sends from now on

	OpConnect // Socket → a descriptor that is connected, or about to be
	OpListen  // Socket → a descriptor

	OpAttach    // pid of a command with a spool → path, arguments as far as they fit; OpExit follows
	OpFollow    // request number of the OpAttach, Stdio, with descriptors for its bits 1 and 2
	OpDetach    // request number of an OpAttach or an OpStart with a spool, 1: it was waited for → bytes missed before, since
	OpProcesses // pid → processes of higher numbers, until none is left

	OpLink        // old, new
	OpTruncate    // name, size
	OpChtimes     // name, Attr of which the times count
	OpSetAttr     // with a descriptor, Attr
	OpPlace       // with a directory's descriptor, Place → of a file or directory a descriptor
	OpWatch       // with a socket, over which OpWatch messages of WatchEvents come
	OpWatchAdd    // request number of the OpWatch, name, 1: don't follow a link → watch descriptor
	OpWatchRemove // request number of the OpWatch, watch descriptor

	OpOpenFiles // how many open files processes may have that start from now on

	OpConfigure // Config, of which the seccomp program doesn't count; in the place of what OpHold brought → Info
)

// ErrMessage means that the other end sent what is no message of this protocol.
var ErrMessage = errors.New("wire: malformed message")

// ErrNoMessage means that none has come yet.
var ErrNoMessage = errors.New("wire: no message")

// A Message is built by its methods. Use New.
type Message struct{ b []byte }

// New begins a message in buf, which may be nil.
func New(buf []byte, op Op, id uint32) *Message {
	b := append(buf[:0], byte(op), 0)
	return &Message{binary.LittleEndian.AppendUint32(b, id)}
}

// In sets the message's epoch, which is 0 otherwise. The agent ignores requests of an epoch that is over: those
// that a handle sent before it heard that the sandbox is paused.
func (m *Message) In(epoch uint8) *Message {
	m.b[1] = epoch
	return m
}

// Epoch is the epoch of a message that Read has read.
func Epoch(b []byte) uint8 { return b[1] }

// Bytes is the encoded message.
func (m *Message) Bytes() []byte { return m.b }

// Uint adds a number.
func (m *Message) Uint(v uint64) *Message {
	m.b = binary.AppendUvarint(m.b, v)
	return m
}

// Int adds a number that may be negative.
func (m *Message) Int(v int64) *Message {
	m.b = binary.AppendVarint(m.b, v)
	return m
}

// Bool adds a truth value.
func (m *Message) Bool(v bool) *Message {
	if v {
		return m.Uint(1)
	}
	return m.Uint(0)
}

// Text adds a string of any bytes.
func (m *Message) Text(s string) *Message {
	m.b = append(binary.AppendUvarint(m.b, uint64(len(s))), s...)
	return m
}

// Texts adds a list of strings.
func (m *Message) Texts(list []string) *Message {
	m.Uint(uint64(len(list)))
	for _, s := range list {
		m.Text(s)
	}
	return m
}

// A Reader takes a message apart in the order in which it was built. After the first field that isn't
// there every field is zero and Err tells.
type Reader struct {
	b   []byte
	err error
}

// Read begins to take b apart. The strings that the reader returns are copies.
func Read(b []byte) (op Op, id uint32, r *Reader, err error) {
	if len(b) < headerSize {
		return 0, 0, nil, ErrMessage
	}
	return Op(b[0]), binary.LittleEndian.Uint32(b[2:]), &Reader{b: b[headerSize:]}, nil
}

// Err is ErrMessage if a field was missing.
func (r *Reader) Err() error { return r.err }

// Done is Err, and ErrMessage as well if anything is left to read.
func (r *Reader) Done() error {
	if len(r.b) > 0 {
		r.fail()
	}
	return r.err
}

// More tells whether anything is left to read.
func (r *Reader) More() bool { return len(r.b) > 0 }

func (r *Reader) fail() {
	r.b, r.err = nil, ErrMessage
}

// Uint reads a number.
func (r *Reader) Uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Int reads a number that may be negative.
func (r *Reader) Int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Bool reads a truth value.
func (r *Reader) Bool() bool { return r.Uint() != 0 }

// Text reads a string.
func (r *Reader) Text() string {
	n := r.Uint()
	if n > uint64(len(r.b)) {
		r.fail()
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// Texts reads a list of strings; nil if it is empty.
func (r *Reader) Texts() []string {
	n := r.Uint()
	if n > uint64(len(r.b)) { // each takes a byte at least
		r.fail()
		return nil
	}
	var list []string
	for range n {
		if list = append(list, r.Text()); r.err != nil {
			return nil
		}
	}
	return list
}

// Clone is a Reader of what r has left that doesn't share the memory r reads from.
func Clone(r *Reader) *Reader { return &Reader{b: bytes.Clone(r.b), err: r.err} }
