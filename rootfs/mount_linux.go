package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// mountPoints are directories one of which every host has. See MountPoint.
var mountPoints = []string{"/mnt", "/media", "/srv", "/opt", "/home", "/var/tmp", "/tmp"}

// MountPoint is a directory of the host's where the sandbox in dir can have its root file system mounted:
// any user can reach it, as the sandbox's root must, and dir isn't below it. The mount is in a namespace of
// its own; the host never sees it.
func MountPoint(dir string) (string, error) {
	for _, point := range mountPoints {
		fi, err := os.Lstat(point)
		if err != nil || !fi.IsDir() || fi.Mode().Perm()&0o001 == 0 {
			continue
		}
		if dir != point && !strings.HasPrefix(dir, point+"/") {
			return point, nil
		}
	}
	return "", fmt.Errorf("%w: no place to mount a root file system on: make a directory /mnt with mode 0755", errors.ErrUnsupported)
}

// MountTree mounts the tree in the directory dir at root, for a sandbox of the template t with the ids of
// the user namespace ns. uid is the host's id of its root. The calling thread must have a mount namespace
// of its own, and be of no other use: its working directory changes. device is the number of the disk's, see
// makedev(3), or 0 if the tree has none.
func MountTree(dir, root string, t Template, mounts []Mount, ns *os.File, uid uint32) (device uint64, err error) {
	steps, err := plan(t, mounts)
	if err != nil {
		return 0, err
	}
	// All sources are taken before anything is mounted: root hides those that are below it.
	fds, err := cloneAll(steps)
	defer closeAll(fds)
	if err != nil {
		return 0, err
	}
	// The overlay's options are relative, so that no path of the host's stands in a /proc/mounts inside.
	if err := unix.Chdir(dir); err != nil {
		return 0, &os.PathError{Op: "chdir", Path: dir, Err: err}
	}
	if err := makePoints(steps); err != nil {
		return 0, err
	}
	disk, err := hasDisk()
	if disk {
		device, err = mountDisk()
	}
	if err != nil {
		return 0, err
	}
	for i, s := range steps {
		switch {
		case s.lower:
			err = s.mountOverlay(fds[i], root, ns, disk)
		case s.layer != "":
			err = s.mountLayer(fds[i], root, ns, uid)
		default:
			err = s.bind(fds[i], root, ns, uid)
		}
		if err != nil {
			return 0, s.fail(err)
		}
	}
	return device, nil
}

// makePoints makes the directories to mount on, in the tree that is the working directory.
func makePoints(steps []step) error {
	if err := unix.Mount("tmpfs", pointsDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", os.NewSyscallError("mount", err))
	}
	points := []string{diskDir, emptyDir, lowerDir}
	for _, s := range steps {
		if s.layer != "" {
			points = append(points, s.layer)
		}
	}
	for _, point := range points {
		if err := os.Mkdir(point, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (s step) fail(err error) error { return fmt.Errorf("mount %s: %w", s.source, err) }

// cloneAll makes a mount of each step's source that is attached nowhere yet, see open_tree(2). A bind has all
// that is mounted below its source, too. With an error it gives those that were made until then.
func cloneAll(steps []step) (fds []int, err error) {
	for _, s := range steps {
		flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
		if !s.lower {
			flags |= unix.AT_RECURSIVE
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, s.source, flags)
		if err != nil {
			return fds, s.fail(os.NewSyscallError("open_tree", err))
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// mountOverlay mounts the template, which is fd, at lower, and the overlay at root. It is written to the disk, if
// there is one. No sandbox outlives the host, so that the overlay is volatile: to sync it tells of errors, and writes
// nothing, see overlayfs in the kernel's documents. Else a guest could keep the host's disk busy with little. msync(2)
// and direct I/O go past the overlay.
func (s step) mountOverlay(fd int, root string, ns *os.File, disk bool) error {
	if err := setattr(fd, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}); err != nil {
		return fmt.Errorf("%w: the template's file system can't be mounted with other owners (%v): "+
			"keep templates and the state directory on ext4, xfs, btrfs or tmpfs", errors.ErrUnsupported, err)
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, s.target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	in := "."
	if disk {
		in = diskDir
	}
	options := "lowerdir=" + lowerDir + ",upperdir=" + path.Join(in, upperDir) + ",workdir=" + path.Join(in, workDir) + ",volatile"
	if err := unix.Mount("overlay", root, "overlay", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("overlay: %w: the state directory must be on a file system that can be an overlay's upper layer, "+
			"such as ext4, xfs, btrfs or tmpfs", err)
	}
	return nil
}

// bind mounts a directory or file of the host's, which is fd, at a place below root.
func (s step) bind(fd int, root string, ns *os.File, uid uint32) error {
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if !s.writable {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	if err := setattr(fd, unix.AT_RECURSIVE, attr); err != nil {
		return err
	}
	mapIDs(fd, ns)
	dir, err := isDir(fd)
	if err != nil {
		return err
	}
	target, err := s.openTarget(root, dir, uid)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := unix.MoveMount(fd, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	return nil
}

// mapIDs gives the owners of a mount their ids in the sandbox. Where the file system can't, its files belong to
// nobody inside, which is the lesser right.
func mapIDs(fd int, ns *os.File) {
	_ = setattr(fd, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
}

// mountLayer mounts an overlay of nothing but a directory of the host's, which is fd, at a place below root. Its
// files are other inodes than the host's: a lock, a lease or a watch on one reaches no one else. What is mounted
// below the directory isn't shown.
func (s step) mountLayer(fd int, root string, ns *os.File, uid uint32) error {
	mapIDs(fd, ns)
	target, err := s.openTarget(root, true, uid)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, s.layer, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	err = unix.Mount("overlay", fmt.Sprintf("/proc/self/fd/%d", target), "overlay", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV,
		"lowerdir="+s.layer+":"+emptyDir)
	if err != nil {
		return fmt.Errorf("overlay: %w: %s must be on a file system that can be an overlay's layer", err, s.source)
	}
	return nil
}

// openTarget is openTarget for the step's mount point.
func (s step) openTarget(root string, dir bool, uid uint32) (int, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(fd)
	target, err := openTarget(fd, s.target, dir, int(uid))
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: s.target, Err: err}
	}
	return target, nil
}

func isDir(fd int) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, os.NewSyscallError("fstat", err)
}

// openTarget opens the mount point unsafePath below root, for a directory or a file, and makes what is missing
// of it. The template decides which links there are; none leads out of root.
func openTarget(root int, unsafePath string, dir bool, uid int) (int, error) {
	parts := strings.Split(strings.Trim(unsafePath, "/"), "/")
	at := ""
	for i, part := range parts {
		last := i == len(parts)-1
		parent := at
		at = path.Join(at, part)
		fd, err := openBelow(root, at)
		if err == unix.ENOENT {
			err = makeBelow(root, parent, part, dir || !last, uid)
			if err == nil {
				fd, err = openBelow(root, at)
			}
		}
		if err != nil {
			return -1, err
		}
		if last {
			return checkTarget(fd, dir)
		}
		_ = unix.Close(fd)
	}
	return -1, unix.EINVAL
}

// checkTarget is fd if it fits what is to be mounted there. It takes fd.
func checkTarget(fd int, dir bool) (int, error) {
	isDir, err := isDir(fd)
	switch {
	case err == nil && dir && !isDir:
		err = unix.ENOTDIR
	case err == nil && !dir && isDir:
		err = unix.EISDIR
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func openBelow(root int, unsafePath string) (int, error) {
	if unsafePath == "" {
		unsafePath = "."
	}
	for {
		fd, err := unix.Openat2(root, unsafePath, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

func makeBelow(root int, parent, name string, dir bool, uid int) error {
	fd, err := openBelow(root, parent)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if dir {
		err = unix.Mkdirat(fd, name, 0o755)
		if err == nil {
			err = unix.Fchmodat(fd, name, 0o755, 0) // whatever the umask is
		}
	} else {
		err = unix.Mknodat(fd, name, unix.S_IFREG|0o644, 0)
	}
	if err != nil {
		return err
	}
	return unix.Fchownat(fd, name, uid, uid, unix.AT_SYMLINK_NOFOLLOW)
}

// setattr changes a mount, see mount_setattr(2).
func setattr(fd int, flags uint, attr *unix.MountAttr) error {
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|flags, attr))
}
