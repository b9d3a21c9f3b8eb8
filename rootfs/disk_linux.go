package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// mountDisk mounts the disk of the tree that is the working directory. With the last mount of it, however that goes, the
// kernel gives the loop device back. device is its number.
func mountDisk() (device uint64, err error) {
	dev, err := attachDisk()
	if err != nil {
		return 0, err
	}
	defer dev.Close()
	_ = unix.Fadvise(int(dev.Fd()), 0, headSize, unix.FADV_WILLNEED) // else each block is waited for when it is needed
	// What is flushed needn't reach the host's disk, as no sandbox outlives the host, nor what replaces a file at once.
	// What a guest deletes is given back to the host's file system.
	err = unix.Mount(dev.Name(), diskDir, "ext4", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOATIME, "discard,nobarrier,noauto_da_alloc")
	if err == unix.ENODEV {
		return 0, noDisk("the kernel has no ext4: load its module (modprobe ext4)")
	}
	if err != nil {
		return 0, fmt.Errorf("mount disk: %w", os.NewSyscallError("mount", err))
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dev.Fd()), &st); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	return st.Rdev, nil
}

// headSize is the size of the head of a disk of up to 16 GiB, or more; of a larger one it is the beginning.
const headSize = 64 << 10

// noDisk is why no disk can be had, and what helps.
func noDisk(reason string) error {
	return fmt.Errorf("%w: the writable layer can't be limited: %s; or ask for a sandbox without this limit, Limits.Disk: -1",
		errors.ErrUnsupported, reason)
}

// attachDisk gives a loop device on the disk of the tree that is the working directory, see loop(4). It goes when
// it is closed and not mounted.
func attachDisk() (dev *os.File, err error) {
	img, err := openDisk()
	if err != nil {
		return nil, err
	}
	defer img.Close()
	dir, err := unix.Getwd()
	if err != nil {
		return nil, os.NewSyscallError("getcwd", err)
	}
	config := &unix.LoopConfig{Fd: uint32(img.Fd()), Size: blockSize}
	// What a guest writes goes past the host's page cache, where the host's file system can do that. Else threads of the
	// kernel's copy it there, whose time counts for nobody, and who syncs on the host waits for it.
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_DIRECT_IO
	copy(config.Info.File_name[:unix.LO_NAME_SIZE-1], filepath.Base(dir))
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, noLoop(err)
	}
	defer control.Close()
	for tries := 0; ; tries++ {
		dev, err := attachFree(control, config)
		if err != unix.EBUSY {
			return dev, err
		}
		if tries == loopTries {
			return nil, noLoop(err)
		}
		time.Sleep(time.Millisecond) // the kernel doesn't tell when a device becomes free
	}
}

// loopTries is how often others may be faster to take a free loop device.
const loopTries = 2000

// attachFree attaches a loop device that is free. EBUSY means that another did.
func attachFree(control *os.File, config *unix.LoopConfig) (*os.File, error) {
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, noLoop(os.NewSyscallError("ioctl LOOP_CTL_GET_FREE", err))
	}
	dev, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, unix.EBUSY
	}
	if err != nil {
		return nil, noLoop(err)
	}
	err = unix.IoctlLoopConfigure(int(dev.Fd()), config)
	if err == nil {
		return dev, nil
	}
	_ = dev.Close()
	if err != unix.EBUSY {
		err = fmt.Errorf("disk: %w", os.NewSyscallError("ioctl LOOP_CONFIGURE", err))
	}
	return nil, err
}

func noLoop(err error) error {
	return noDisk(fmt.Sprintf("there is no loop device (%v): load the module (modprobe loop), and give a container "+
		"/dev/loop-control and the /dev/loop devices", err))
}

// openDisk opens the disk of the tree that is the working directory through a mount of that alone: who reads
// backing_file in sysfs, as a guest can, sees no more of the host's paths.
func openDisk() (*os.File, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, ".", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("open_tree", err)
	}
	defer unix.Close(tree)
	for {
		fd, err := unix.Openat(tree, diskFile, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), diskFile), nil
		}
		if err != unix.EINTR {
			return nil, &os.PathError{Op: "open", Path: diskFile, Err: err}
		}
	}
}

// hasDisk tells whether the tree that is the working directory has a disk.
func hasDisk() (bool, error) {
	_, err := os.Lstat(diskFile)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// DiskUsage tells what is used of a tree that has a disk, in bytes, and how many files it has, as the kernel
// counts them. root is where the tree is mounted, such as /proc/<pid>/root of a process whose root it is.
func DiskUsage(root string) (bytes, files int64, err error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(root, &st)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return 0, 0, &os.PathError{Op: "statfs", Path: root, Err: err}
		}
	}
	bytes = int64(st.Blocks-st.Bfree)*st.Bsize - ownBlocks*blockSize
	files = int64(st.Files-st.Ffree) - reservedInodes - ownFiles
	return max(0, bytes), max(0, files), nil
}
