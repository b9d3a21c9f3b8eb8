package engine_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What the worst guests do, each in a sandbox of its own; what they do by children is in abuse_child_test.go.

func init() {
	// Inside a sandbox: <kind>: does it, prints a line when it is at its worst, and goes on until it is killed.
	helpers["abuse"] = func(args []string) error {
		for _, a := range abuses {
			if a.name == args[0] {
				return a.does(func() { fmt.Println("worst") })
			}
		}
		return errors.New("no such abuse")
	}
}

// hogs keeps n children at something that the kernel kills them for in the end. It is at its worst when that has come to
// one, or all wait, for there is no more for them.
func hogs(n int, child func()) func(worst func()) error {
	return func(worst func()) error {
		worst = sync.OnceFunc(worst)
		if err := byChildren(n, child, worst); err != nil {
			return err
		}
		for {
			var status syscall.WaitStatus
			if _, err := syscall.Wait4(-1, &status, 0, nil); err == nil {
				worst()
			}
			if _, errno := fork(thenTell); errno != 0 {
				time.Sleep(time.Millisecond) // nothing tells when there is room for a process again
			}
		}
	}
}

// byChildren has n children do something, calls done when they have, and leaves them waiting.
func byChildren(n int, f func(), done func()) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	told, doing = w.Fd(), f
	n = forkAll(n, thenTell)
	go func() {
		for range n {
			_, _ = r.Read(make([]byte, 1))
		}
		done()
	}()
	return nil
}

// endlessly has n children do something that has no end.
func endlessly(n int, child func()) func(worst func()) error {
	return thenWait(func() error {
		forkAll(n, child)
		return nil
	})
}

// together has n children do something each, which they then keep.
func together(n int, child func()) func(worst func()) error {
	return func(worst func()) error {
		if err := byChildren(n, child, worst); err != nil {
			return err
		}
		untilClosed()
		return nil
	}
}

// thenWait does something once, and keeps what it has got.
func thenWait(f func() error) func(worst func()) error {
	return func(worst func()) error {
		if err := f(); err != nil {
			return err
		}
		worst()
		untilClosed()
		return nil
	}
}

// bombs has every process fork for ever.
func bombs() error {
	for {
		if _, errno := fork(bomb); errno != 0 {
			return nil
		}
	}
}

// zombies has as many children as there may be that have ended, and doesn't wait for them.
func zombies() error {
	forkAll(1<<20, end)
	return nil
}

// fillShm fills /dev/shm and keeps it so.
func fillShm() error {
	f, err := os.Create("/dev/shm/f")
	for err == nil {
		_, err = f.Write(zeros[:])
	}
	if errors.Is(err, syscall.ENOSPC) {
		return nil
	}
	return err
}

// churnCache writes and reads a file that is larger than the memory, again and again.
func churnCache(worst func()) error {
	f, err := os.Create("f")
	if err != nil {
		return err
	}
	const size = 256 << 20
	for round := 0; ; round++ {
		for at := int64(0); at < size; at += int64(len(zeros)) {
			if _, err := f.WriteAt(zeros[:], at); err != nil {
				return err
			}
		}
		for at := int64(0); at < size; at += int64(len(zeros)) {
			if _, err := f.ReadAt(zeros[:], at); err != nil {
				return err
			}
		}
		if round == 0 {
			worst()
		}
	}
}

// lookForNothing looks for names that aren't there, which the kernel remembers.
func lookForNothing(worst func()) error {
	for n := 0; ; n++ {
		_, _ = os.Lstat("none" + strconv.Itoa(n))
		if n == 100_000 {
			worst()
		}
	}
}

// refillDisk fills the disk with a file, and deletes it, again and again.
func refillDisk(worst func()) error {
	for round := 0; ; round++ {
		f, err := os.Create("f")
		for err == nil {
			_, err = f.Write(zeros[:])
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return err
		}
		if round == 0 {
			worst()
		}
		if err := errors.Join(f.Sync(), f.Truncate(0), f.Close()); err != nil {
			return err
		}
	}
}

// fillInodes makes files until there may be no more.
func fillInodes() error {
	for n := 0; ; n++ {
		fd, err := unix.Open("f"+strconv.Itoa(n), unix.O_CREAT, 0o600)
		if errors.Is(err, syscall.ENOSPC) {
			return nil
		}
		if err != nil {
			return err
		}
		_ = unix.Close(fd)
	}
}

// syncAlways writes small files and has all written at once.
func syncAlways(worst func()) error {
	forkAll(4, syncAll)
	worst()
	for n := 0; ; n++ {
		if err := os.WriteFile("f"+strconv.Itoa(n%100), zeros[:], 0o600); err != nil {
			return err
		}
	}
}

// watchedDirs times the instances that a user may have, 128, are 51 200 watches.
const watchedDirs = 400

// watchAll has as many inotify instances as there may be, with many watches each.
func watchAll() error {
	for n := range watchedDirs {
		if err := os.Mkdir("d"+strconv.Itoa(n), 0o700); err != nil {
			return err
		}
	}
	for {
		fd, err := unix.InotifyInit()
		if err != nil {
			return nil
		}
		for n := range watchedDirs {
			if _, err := unix.InotifyAddWatch(fd, "d"+strconv.Itoa(n), unix.IN_ALL_EVENTS); err != nil {
				break
			}
		}
	}
}

// openTerminals has as many terminals as there may be, and fills each.
func openTerminals() error {
	for n := 0; ; n++ {
		fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		if err != nil && n > 200 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d terminals: %w", n, err)
		}
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		for {
			if _, err := unix.Write(fd, zeros[:4096]); err != nil {
				break
			}
		}
	}
}

// connectMany has thousands of connections on loopback.
func connectMany() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	for len(connected) < 3800 {
		c, s, err := connectTo(l)
		if err != nil {
			break
		}
		connected = append(connected, c, s)
	}
	if len(connected) < 1000 {
		return fmt.Errorf("only %d sockets", len(connected))
	}
	return nil
}

var connected []net.Conn // kept open

// swapNames exchanges a file, a directory and links for each other, below the name "all".
func swapNames(worst func()) error {
	if err := os.MkdirAll("all/dir/below", 0o755); err != nil {
		return err
	}
	err := errors.Join(os.WriteFile("all/file", []byte("guest"), 0o644), os.WriteFile("all/dir/file", []byte("guest"), 0o644),
		os.Symlink("/etc", "all/link"), os.Symlink("../../../../../../proc/1/root/etc", "all/up"), os.Symlink("dir", "all/near"))
	if err != nil {
		return err
	}
	names := []string{"file", "dir", "link", "up", "near"}
	for n := 0; ; n++ {
		a, b := names[n%len(names)], names[(n/len(names)+1)%len(names)]
		_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join("all", a), unix.AT_FDCWD, filepath.Join("all", b), unix.RENAME_EXCHANGE)
		if n == 1000 {
			worst()
		}
	}
}
