package rootfs

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxUsageDepth is how deep TreeUsage looks. It holds a descriptor for each level.
const maxUsageDepth = 256

// TreeUsage tells what the tree in the directory dir takes of its file system, in bytes, and how many files it
// has, if it has no disk; else see DiskUsage. It may be in use: links are not followed, and what comes and goes is counted or not. What lies deeper than
// 256 directories isn't.
func TreeUsage(ctx context.Context, dir string) (bytes, files int64, err error) {
	path := filepath.Join(dir, upperDir)
	fd, err := unix.Open(path, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	u := &usage{ctx: ctx, linked: map[uint64]bool{}}
	if err := u.dir(fd, 0); err != nil {
		return 0, 0, &os.PathError{Op: "read", Path: path, Err: err}
	}
	return u.bytes, u.files, nil
}

// usage is a count under way.
type usage struct {
	ctx          context.Context
	bytes, files int64
	linked       map[uint64]bool // the files of several names that were counted
}

// dir counts what is in a directory. It takes fd.
func (u *usage) dir(fd, depth int) error {
	defer unix.Close(fd)
	buf := make([]byte, 8<<10)
	for {
		if err := context.Cause(u.ctx); err != nil {
			return err
		}
		n, err := unix.Getdents(fd, buf)
		if err == unix.ENOENT || n == 0 && err == nil { // the directory is gone, or read
			return nil
		}
		if err != nil {
			return err
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		for _, name := range names {
			if err := u.entry(fd, name, depth); err != nil {
				return err
			}
		}
	}
}

func (u *usage) entry(at int, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil // gone
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if st.Nlink > 1 && !isDir {
		if u.linked[st.Ino] {
			return nil
		}
		u.linked[st.Ino] = true
	}
	u.bytes += st.Blocks * 512
	u.files++
	if !isDir || depth == maxUsageDepth {
		return nil
	}
	fd, err := unix.Openat(at, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // gone, or something else by now
	}
	return u.dir(fd, depth+1)
}
