package rootfs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/rootfs"
	"golang.org/x/sys/unix"
)

// diskSizes are sizes of disks, among them those about which their layout changes: where another group of blocks
// begins, and another block of groups.
func diskSizes() []int64 {
	sizes := []int64{rootfs.MinDisk, rootfs.MinDisk + 1, 16 << 20, 64 << 20, 1 << 30, 2 << 30, 15 << 30, 16 << 30, 100 << 30, rootfs.MaxDisk}
	for size := int64(116 << 20); size < 136<<20; size += 1<<20 - 4096 {
		sizes = append(sizes, size)
	}
	return sizes
}

// TestDisk mounts disks of all sizes. They have room for what they were made for and not much more.
func TestDisk(t *testing.T) {
	for _, size := range diskSizes() {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			dir, img := newDisk(t, size)
			var image unix.Stat_t
			if err := unix.Stat(img, &image); err != nil {
				t.Fatal(err)
			}
			if taken := image.Blocks * 512; taken > 64<<10+size>>20 {
				t.Errorf("an empty disk takes %d bytes", taken)
			}
			checkDisk(t, img)
			onOwnMounts(t, dir, func() error {
				var st unix.Statfs_t
				err := unix.Statfs("mnt/disk", &st)
				room, files := int64(st.Bavail)*st.Bsize, int64(st.Ffree)
				if room < size-16<<10 || room > size+size/1000+3<<20 {
					t.Errorf("room for %d bytes, want about %d", room, size)
				}
				if want := max(1024, size/(16<<10)); files < want || files > want+want/10+128 {
					t.Errorf("room for %d files, want about %d", files, want)
				}
				return err
			})
			checkDisk(t, img) // as it was written by the kernel
		})
	}
}

func newDisk(t *testing.T, size int64) (dir, img string) {
	t.Helper()
	dir = t.TempDir()
	img = filepath.Join(dir, "disk.img")
	if err := rootfs.MakeDisk(img, rootUID, size); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "disk"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir, img
}

// TestHead looks at what a disk is made with: one piece, in which the kernel finds what it counts itself, and the directories
// of an overlay.
func TestHead(t *testing.T) {
	for _, size := range []int64{rootfs.MinDisk, 126 << 20, 2 << 30, 15 << 30} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			before := time.Now().Truncate(time.Second)
			dir, img := newDisk(t, size)
			made := readSuper(t, img)
			onOwnMounts(t, dir, func() error {
				for name, uid := range map[string]uint32{"upper": rootUID, "work": 0} {
					fi, err := os.Lstat("mnt/disk/" + name)
					if err != nil {
						return err
					}
					st := fi.Sys().(*syscall.Stat_t)
					if fi.Mode() != fs.ModeDir|0o755 || st.Uid != uid || st.Gid != uid || st.Nlink != 2 {
						t.Errorf("%s: %v of %d:%d with %d links, want drwxr-xr-x of %d and 2", name, fi.Mode(), st.Uid, st.Gid, st.Nlink, uid)
					}
					for _, ts := range []syscall.Timespec{st.Atim, st.Mtim, st.Ctim} {
						if when := time.Unix(ts.Unix()); when.Before(before) || when.After(time.Now()) {
							t.Errorf("%s has the time %v", name, when)
						}
					}
				}
				return nil
			})
			if was, is := overhead(made), overhead(readSuper(t, img)); was != is {
				t.Errorf("%d blocks are the file system's own, and the kernel counts %d", was, is)
			}
		})
	}
}

// readSuper reads the superblock of a disk that is in one piece, as one is when it is made, and one that has been mounted.
func readSuper(t *testing.T, img string) []byte {
	t.Helper()
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	end, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_HOLE)
	if err != nil || end > 64<<10 {
		t.Errorf("a disk begins with %d bytes, %v, want no more than 64 KiB", end, err)
	}
	if at, err := unix.Seek(int(f.Fd()), end, unix.SEEK_DATA); err != unix.ENXIO {
		t.Errorf("another piece of a disk is at %d, %v", at, err)
	}
	b := make([]byte, 1024)
	if _, err := f.ReadAt(b, 1024); err != nil {
		t.Fatal(err)
	}
	return b
}

// overhead is what a superblock says of how many blocks are not for files.
func overhead(super []byte) uint32 { return binary.LittleEndian.Uint32(super[0x248:]) }

// checkDisk has a disk checked by who knows the format.
func checkDisk(t *testing.T, img string) {
	t.Helper()
	fsck, err := exec.LookPath("e2fsck")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("a disk is checked by e2fsck: install e2fsprogs")
		}
		return
	}
	out, err := exec.Command(fsck, "-fn", img).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "e2fsck ") || strings.HasPrefix(line, "Pass ") || strings.HasPrefix(line, img) || strings.TrimSpace(line) == "" ||
			strings.HasPrefix(line, "/lost+found not found") { // nobody will repair it
			continue
		}
		t.Errorf("e2fsck: %s", line)
	}
}

// TestDiskFull fills disks to the last block, over the ends of groups, and reads that back.
func TestDiskFull(t *testing.T) {
	for _, size := range []int64{rootfs.MinDisk, 16 << 20, 126 << 20, 140 << 20, 300 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			dir, img := newDisk(t, size)
			onOwnMounts(t, dir, func() error { return fill(t, "mnt/disk/upper/f", size) })
			checkDisk(t, img)
		})
	}
}

func fill(t *testing.T, path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 4096)
	n := int64(0)
	for err == nil {
		buf[0], buf[1], buf[2] = byte(n>>12), byte(n>>20), byte(n>>28)
		_, err = f.Write(buf)
		n += int64(len(buf))
	}
	if !errors.Is(err, unix.ENOSPC) || n < size-size/100-64<<10 || n > size+size/100+64<<10 {
		t.Errorf("%v after %d bytes, want ENOSPC after about %d", err, n, size)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	got := make([]byte, 4096)
	for at := int64(0); at < n-4096; at += 4096 {
		buf[0], buf[1], buf[2] = byte(at>>12), byte(at>>20), byte(at>>28)
		if _, err := f.ReadAt(got, at); err != nil || !bytes.Equal(got, buf) {
			return fmt.Errorf("at %d: read something else, %v", at, err)
		}
	}
	return nil
}

// onOwnMounts calls f on a thread with a mount namespace of its own and the working directory dir, and unmounts the
// disk there.
func onOwnMounts(t *testing.T, dir string, f func() error) {
	t.Helper()
	needRoot(t)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "")
		}
		if err == nil {
			err = unix.Chdir(dir)
		}
		if err == nil {
			err = os.MkdirAll("mnt/disk", 0o700)
		}
		if err == nil {
			_, err = rootfs.MountDisk()
		}
		if err == nil {
			err = errors.Join(f(), unix.Unmount("mnt/disk", 0))
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
