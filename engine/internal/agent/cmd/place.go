//go:build linux

package main

import (
	"slices"
	"strings"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

const (
	// maxRaces is how often something is replaced while others put something there again.
	maxRaces = 128
	// maxLinks is how many links are followed for one name, as by the kernel, see path_resolution(7).
	maxLinks = 40
)

// beneathError means that a link leads out of the directory.
type beneathError struct{}

func (beneathError) Error() string { return wire.StageBeneath }

// place puts something below the directory that is sent along. What is on the way is resolved and made
// there, a step at a time, so that a link which an earlier request or a process of the sandbox has
// put there is followed to what is below the directory and nowhere else. Something that is no directory is
// replaced, never written to: it may have other names.
func (q *request) place() error {
	p := wire.ReadPlace(q.r)
	if err := q.r.Done(); err != nil {
		return err
	}
	if len(q.fds) != 1 {
		return wire.ErrMessage
	}
	fd := -1
	return q.freeing(func(q *request, light bool) error {
		parent, base := splitLast(p.Name)
		dir, err := makeBeneath(q.fds[0], parent)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		if light && isHeavy(dir, base, unix.AT_SYMLINK_NOFOLLOW) {
			return errHeavy
		}
		fd, err = placeIn(q.fds[0], dir, base, p)
		return err
	}, func(q *request, err error) error { return q.placed(fd, err) })
}

// placed answers with what was placed, if that is open.
func (q *request) placed(fd int, err error) error {
	if _, ok := err.(beneathError); ok {
		return q.fail(unix.EXDEV, wire.StageBeneath)
	}
	if err != nil || fd < 0 {
		return q.done(err)
	}
	defer unix.Close(fd)
	return q.send(q.ok(), fd)
}

// splitLast splits a relative name into its last element and what is before.
func splitLast(name string) (parent, base string) {
	name = strings.TrimRight(name, "/")
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return ".", name
	}
	return name[:i], name[i+1:]
}

// openBeneath opens a directory below root to resolve names in it, as openat2(2) does with RESOLVE_BENEATH; the default seccomp
// profile denies that call. A link may lead anywhere below root, and what leads out of it is a beneathError.
func openBeneath(root int, name string) (fd int, err error) {
	switch {
	case name == "":
		return -1, unix.ENOENT
	case name[0] == '/':
		return -1, beneathError{}
	case len(name) >= unix.PathMax:
		return -1, unix.ENAMETOOLONG
	}
	at, err := openDir(root, ".")
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(at)
		}
	}()
	var passed []string // the names from root to at, none of which was a link
	todo := strings.Split(name, "/")
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		next := -1
		switch part {
		case "", ".":
			continue
		case "..": // of at may lead anywhere by now
			if len(passed) == 0 {
				return -1, beneathError{}
			}
			todo = slices.Concat(passed[:len(passed)-1], todo)
			passed = nil
			next, err = openDir(root, ".")
		default:
			next, err = openDir(at, part)
			if err == unix.ENOTDIR {
				if todo, err = linked(at, part, todo); err == nil && links < maxLinks {
					links++
					continue
				}
				if err == nil {
					err = unix.ELOOP
				}
			}
			passed = append(passed, part)
		}
		if err != nil {
			return -1, err
		}
		_ = unix.Close(at)
		at = next
	}
	return at, nil
}

// openDir opens a directory, and no link to one, to resolve names in it.
func openDir(at int, name string) (int, error) {
	for {
		fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// linked is what is to be resolved from the directory at when name, which is a link there, and rest were. It is ENOTDIR if name
// is none.
func linked(at int, name string, rest []string) ([]string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(at, name, buf)
	switch {
	case err == unix.EINVAL:
		return nil, unix.ENOTDIR
	case err != nil:
		return nil, err
	case n > 0 && buf[0] == '/':
		return nil, beneathError{}
	}
	return append(strings.Split(string(buf[:n]), "/"), rest...), nil
}

// makeBeneath is openBeneath, and makes what is missing.
func makeBeneath(root int, name string) (int, error) {
	fd, err := openBeneath(root, name)
	if err != unix.ENOENT || name == "." {
		return fd, err
	}
	parent, base := splitLast(name)
	dir, err := makeBeneath(root, parent)
	if err != nil {
		return -1, err
	}
	err = unix.Mkdirat(dir, base, 0o755)
	_ = unix.Close(dir)
	if err != nil && err != unix.EEXIST {
		return -1, err
	}
	return openBeneath(root, name)
}

// placeIn puts p into dir as base, and opens it if it is a file or directory.
func placeIn(root, dir int, base string, p wire.Place) (int, error) {
	if base == "" || base == "." || base == ".." || strings.Contains(base, "/") {
		return -1, unix.EINVAL
	}
	if p.Kind == wire.PlaceDir {
		return placeDir(dir, base)
	}
	if p.Kind == wire.PlaceLink {
		return -1, placeLink(root, dir, base, p.Target)
	}
	fd := -1
	err := replacing(dir, base, func() (err error) {
		switch p.Kind {
		case wire.PlaceFile:
			const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
			fd, err = unix.Openat(dir, base, flags, 0o600)
			return err
		case wire.PlaceSymlink:
			return unix.Symlinkat(p.Target, dir, base)
		case wire.PlacePipe:
			return unix.Mknodat(dir, base, unix.S_IFIFO|uint32(p.Attr.Mode)&0o777, 0)
		default:
			return unix.EINVAL
		}
	})
	if err == nil && fd < 0 {
		err = setLinkAttr(dir, base, p.Attr)
	}
	return fd, err
}

// replacing calls make, and if something has the name already removes that, unless it is a directory.
func replacing(dir int, base string, make func() error) error {
	for n := 0; ; n++ {
		err := make()
		if err != unix.EEXIST || n == maxRaces {
			return err
		}
		if err := unix.Unlinkat(dir, base, 0); err != nil && err != unix.ENOENT {
			return err
		}
	}
}

func placeDir(dir int, base string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	err := unix.Mkdirat(dir, base, 0o755)
	if err != nil && err != unix.EEXIST {
		return -1, err
	}
	fd, err := unix.Openat(dir, base, flags, 0)
	if err != unix.ENOTDIR && err != unix.ELOOP {
		return fd, err
	}
	if err := replacing(dir, base, func() error { return unix.Mkdirat(dir, base, 0o755) }); err != nil {
		return -1, err
	}
	return unix.Openat(dir, base, flags, 0)
}

// placeLink makes a hard link to what is below root. A name that is linked to itself stays.
func placeLink(root, dir int, base, target string) error {
	parent, last := splitLast(target)
	from, err := openBeneath(root, parent)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	var a, b unix.Stat_t
	if err := unix.Fstatat(from, last, &a, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if unix.Fstatat(dir, base, &b, unix.AT_SYMLINK_NOFOLLOW) == nil && a.Dev == b.Dev && a.Ino == b.Ino {
		return nil
	}
	return replacing(dir, base, func() error { return unix.Linkat(from, last, dir, base, 0) })
}

// setLinkAttr sets owner and times of what can't be opened; it has no mode, or the one it was made with.
func setLinkAttr(dir int, base string, attr wire.Attr) error {
	if attr.UID >= 0 || attr.GID >= 0 {
		if err := unix.Fchownat(dir, base, int(attr.UID), int(attr.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if attr.Atime == wire.LeaveTime && attr.Mtime == wire.LeaveTime {
		return nil
	}
	return unix.UtimesNanoAt(dir, base, times(attr)[:], unix.AT_SYMLINK_NOFOLLOW)
}
