package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// A tree is a directory with these in it. They are the overlay's, see overlayfs in the kernel's documents.
const (
	upperDir = "upper"    // what the sandbox writes
	workDir  = "work"     // the overlay's own
	diskFile = "disk.img" // with a limit: a file system, with upper and work in it

	pointsDir = "mnt"       // where all is mounted: while that is done, a file system in memory, to make directories at no cost
	lowerDir  = "mnt/lower" // for the template, and with a number for another layer
	emptyDir  = "mnt/empty" // below layers that would be alone, which an overlay can't have
	diskDir   = "mnt/disk"  // for the disk
)

// MakeTree makes an empty tree in the directory dir, for a sandbox whose root has the host's user id uid. With a
// disk, which is MinDisk to MaxDisk bytes, that is all that the sandbox can write, in about a file for each 16 KiB,
// but 1024 at least. It is taken of the file system of dir as it is written. Without one, which is 0, there is no
// limit.
func MakeTree(dir string, uid uint32, disk int64) error {
	if err := os.Mkdir(filepath.Join(dir, pointsDir), 0o700); err != nil {
		return err
	}
	if disk > 0 {
		return makeDisk(filepath.Join(dir, diskFile), uid, disk)
	}
	upper := filepath.Join(dir, upperDir)
	for _, path := range []string{upper, filepath.Join(dir, workDir)} {
		if err := makeLayer(path); err != nil {
			return err
		}
	}
	return os.Lchown(upper, int(uid), int(uid))
}

// makeLayer makes a directory for an overlay.
func makeLayer(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, 0o755) // whatever the umask is
}

// A step is one mount.
type step struct {
	source   string
	target   string // relative to the tree for the template, else below the sandbox's root
	writable bool
	lower    bool   // the template itself
	layer    string // the directory of the tree where the source is mounted, to be shown by an overlay; empty: a bind
}

// plan is what has to be mounted for a sandbox of t, in order.
func plan(t Template, mounts []Mount) ([]step, error) {
	steps := []step{{source: t.Root, target: lowerDir, lower: true}}
	for _, m := range append(append([]Mount{}, t.Mounts...), mounts...) {
		if err := m.Check(); err != nil {
			return nil, err
		}
		s := step{source: m.Source, target: m.Target, writable: m.Writable}
		if m.layer {
			s.layer = fmt.Sprintf("%s%d", lowerDir, len(steps))
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// MountError tells why a Mount can't be had.
type MountError struct {
	Mount  Mount
	Reason string
}

func (e *MountError) Error() string {
	return fmt.Sprintf("mount %.128q at %.128q: %s", e.Mount.Source, e.Mount.Target, e.Reason)
}

// Check tells whether m can be mounted, by a *MountError.
func (m Mount) Check() error {
	fail := func(reason string) error { return &MountError{m, reason} }
	if fault := targetFault(m.Target); fault != "" {
		return fail("the target " + fault)
	}
	switch {
	case !filepath.IsAbs(m.Source):
		return fail("the source must be an absolute path")
	case strings.IndexByte(m.Source, 0) >= 0:
		return fail("the source holds a NUL byte")
	}
	fi, err := os.Stat(m.Source)
	if errors.Is(err, fs.ErrNotExist) {
		return fail("there is no such source")
	}
	if err != nil {
		return fail(reason(err))
	}
	if !fi.IsDir() && !fi.Mode().IsRegular() {
		return fail("the source is neither a directory nor a file")
	}
	return nil
}

// targetFault is what is wrong with where a mount is to be in a sandbox; empty: nothing.
func targetFault(target string) string {
	switch {
	case !path.IsAbs(target) || path.Clean(target) != target || target == "/":
		return "must be an absolute path without . or .., and not /"
	case strings.IndexByte(target, 0) >= 0:
		return "holds a NUL byte"
	case len(target) >= pathMax:
		return fmt.Sprintf("has %d bytes; a path has less than %d", len(target), pathMax)
	}
	for elem := range strings.SplitSeq(target, "/") {
		if len(elem) > nameMax {
			return fmt.Sprintf("has a name of %d bytes in it; at most %d", len(elem), nameMax)
		}
	}
	for _, own := range []string{"/proc", "/sys", "/dev"} {
		if target == own || strings.HasPrefix(target, own+"/") {
			return "is in " + own + ", which is the sandbox's own"
		}
	}
	return ""
}
