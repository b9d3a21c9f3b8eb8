package rootfs

import "io/fs"

// PlannedMount is what plan says of one mount.
type PlannedMount struct {
	Source, Target  string
	Writable, Lower bool
}

// Plan is plan.
func Plan(t Template, mounts []Mount) (list []PlannedMount, err error) {
	steps, err := plan(t, mounts)
	for _, s := range steps {
		list = append(list, PlannedMount{s.source, s.target, s.writable, s.lower})
	}
	return list, err
}

// Entry is a file of the built-in template.
type Entry = entry

// NewEntry makes an Entry.
func NewEntry(name, data string) Entry { return entry{name: name, data: data} }

// Name is where the file is.
func (e entry) Name() string { return e.name }

// Owner is the file's user and group.
func (e entry) Owner() int { return e.id }

// Mode is the file's type and permission.
func (e entry) Mode() fs.FileMode { return e.mode }

// Kind is "dir", "file" or a link's target.
func (e entry) Kind() string {
	switch {
	case e.mode.IsDir():
		return "dir"
	case e.mode&fs.ModeSymlink != 0:
		return "-> " + e.data
	default:
		return "file"
	}
}

// ParseConfig is parseConfig.
var ParseConfig = parseConfig

// What there is to test of the built-in template.
var (
	PlanBase = planBase
	Digest   = digest
)
