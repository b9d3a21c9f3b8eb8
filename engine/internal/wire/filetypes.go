package wire

import "math"

// LeaveTime is, for a time in ns, that it stays as it is.
const LeaveTime = math.MinInt64

// Attr is what is to be set of a file. -1 and LeaveTime leave a thing as it is.
type Attr struct {
	Mode         int64 // permission, setuid, setgid and sticky of inode(7)
	UID, GID     int64
	Atime, Mtime int64 // ns since the epoch
}

// Put adds a to m.
func (a Attr) Put(m *Message) {
	m.Int(a.Mode).Int(a.UID).Int(a.GID).Int(a.Atime).Int(a.Mtime)
}

// ReadAttr reads what Put added.
func ReadAttr(r *Reader) Attr {
	return Attr{Mode: r.Int(), UID: r.Int(), GID: r.Int(), Atime: r.Int(), Mtime: r.Int()}
}

// The kinds of a Place: d_type of readdir(3), and one for a name of what is there.
const (
	PlaceLink    = 0 // hard link to Target, which is below the directory too
	PlacePipe    = 1
	PlaceDir     = 4
	PlaceFile    = 8
	PlaceSymlink = 10
)

// Place is something to be put below a directory, whatever links lie on the way: none is followed out of
// it. Attr is set of what no descriptor is answered for.
type Place struct {
	Name   string
	Kind   uint8
	Target string // of a link
	Attr   Attr
}

// Put adds p to m.
func (p Place) Put(m *Message) {
	m.Text(p.Name).Uint(uint64(p.Kind)).Text(p.Target)
	p.Attr.Put(m)
}

// ReadPlace reads what Put added.
func ReadPlace(r *Reader) Place {
	return Place{Name: r.Text(), Kind: uint8(r.Uint()), Target: r.Text(), Attr: ReadAttr(r)}
}

// StageBeneath is the stage at which OpPlace fails when a link leads out of the directory.
const StageBeneath = "beneath"

// WatchEvent is an event of inotify(7).
type WatchEvent struct {
	WD   int32 // watch descriptor; -1 with IN_Q_OVERFLOW
	Mask uint32
	Name string // of an entry of the watched directory; empty: the directory itself
}

// Put adds e to m.
func (e WatchEvent) Put(m *Message) { m.Int(int64(e.WD)).Uint(uint64(e.Mask)).Text(e.Name) }

// ReadWatchEvent reads what Put added.
func ReadWatchEvent(r *Reader) WatchEvent {
	return WatchEvent{WD: int32(r.Int()), Mask: uint32(r.Uint()), Name: r.Text()}
}
