package engine_test

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Children that are forked without exec, as a program in Go is too large to be started thousands of times. Such a child
// has but the one thread, of which the Go runtime isn't told: it makes raw system calls and nothing else. Its functions
// are all nosplit, for what others begin with may be to wait for the scheduler, and what is handed to the kernel is in
// variables of the package, as a stack may move.

var (
	zeros    [64 << 10]byte
	zerosAt  = uintptr(unsafe.Pointer(&zeros))
	dot      = [2]byte{'.'}
	dotAt    = uintptr(unsafe.Pointer(&dot))
	pair     [2]int32
	spec     = [4]uintptr{0, 100_000, 0, 100_000} // of a timer: every 100 µs
	ignore   = [4]uintptr{1}                      // struct sigaction with SIG_IGN
	event    = [3]uint32{unix.EPOLLIN}
	timerID  int32
	hog      = [...]byte{'h', 'o', 'g', 0}
	fileName = [...]byte{'/', 'e', 't', 'c', '/', 'p', 'a', 's', 's', 'w', 'd', 0}
	scores   = [...]byte{'/', 'p', 'r', 'o', 'c', '/', 's', 'e', 'l', 'f', '/', 'o', 'o', 'm', '_', 's', 'c', 'o', 'r', 'e', '_', 'a', 'd', 'j', 0}
	maxScore = [...]byte{'1', '0', '0', '0'}

	told  uintptr // a descriptor to write a byte to
	doing func()
)

const (
	atFDCWD = ^uintptr(99) // AT_FDCWD
	mapSize = 8 << 20
)

// raw is a system call that the Go runtime isn't told of.
//
//go:nosplit
//go:norace
//go:nocheckptr
func raw(trap, a, b, c, d, e uintptr) (uintptr, syscall.Errno) {
	r, _, errno := syscall.RawSyscall6(trap, a, b, c, d, e, 0)
	return r, errno
}

// clone is fork(2).
//
//go:nosplit
//go:norace
//go:nocheckptr
func clone() (pid uintptr, errno syscall.Errno) {
	return raw(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0)
}

// fork forks a child, which does what it is told to and ends.
//
//go:nosplit
//go:norace
//go:nocheckptr
func fork(child func()) (pid int, errno syscall.Errno) {
	r, errno := clone()
	if r == 0 && errno == 0 {
		child()
		end()
	}
	return int(r), errno
}

// forkAll forks children until there are n, or no more can be had, and tells how many there are.
func forkAll(n int, child func()) int {
	for i := range n {
		if _, errno := fork(child); errno != 0 {
			return i
		}
	}
	return n
}

//go:nosplit
//go:norace
//go:nocheckptr
func end() { raw(unix.SYS_EXIT_GROUP, 0, 0, 0, 0, 0) }

// reapOne waits for a child that ends.
//
//go:nosplit
//go:norace
//go:nocheckptr
func reapOne(flags uintptr) { raw(unix.SYS_WAIT4, ^uintptr(0), 0, flags, 0, 0) }

// thenTell does what is to be done, tells of it and waits. It is what the kernel is to kill first.
//
//go:nosplit
//go:norace
//go:nocheckptr
func thenTell() {
	fd, _ := raw(unix.SYS_OPENAT, atFDCWD, uintptr(unsafe.Pointer(&scores)), unix.O_WRONLY, 0, 0)
	raw(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&maxScore)), uintptr(len(maxScore)), 0, 0)
	raw(unix.SYS_CLOSE, fd, 0, 0, 0, 0)
	doing()
	raw(unix.SYS_WRITE, told, zerosAt, 1, 0, 0)
	for {
		raw(unix.SYS_PPOLL, 0, 0, 0, 0, 0)
	}
}

// bomb forks for ever, and so does each child.
//
//go:nosplit
//go:norace
//go:nocheckptr
func bomb() {
	for {
		clone()
	}
}

// leaveOrphans has PID 1 reap processes as fast as they can be made.
//
//go:nosplit
//go:norace
//go:nocheckptr
func leaveOrphans() {
	for {
		if r, errno := clone(); r == 0 && errno == 0 {
			clone()
			end()
		}
		reapOne(0)
	}
}

// touch writes to each page of memory, which isn't Go's.
//
//go:nosplit
//go:norace
//go:nocheckptr
func touch(at, size uintptr) {
	for p := at; p < at+size; p += 4096 {
		*(*byte)(unsafe.Add(unsafe.Pointer(nil), p)) = 1
	}
}

//go:nosplit
//go:norace
//go:nocheckptr
func takeAnonymous() {
	for {
		at, errno := raw(unix.SYS_MMAP, 0, mapSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0))
		if errno != 0 {
			return
		}
		touch(at, mapSize)
	}
}

// takeMappings has as many mappings as there may be, of one page each.
//
//go:nosplit
//go:norace
//go:nocheckptr
func takeMappings() {
	prot := uintptr(unix.PROT_READ)
	for {
		prot ^= unix.PROT_WRITE // else neighbours became one
		at, errno := raw(unix.SYS_MMAP, 0, 4096, prot, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0))
		if errno != 0 {
			return
		}
		if prot&unix.PROT_WRITE != 0 {
			touch(at, 1)
		}
	}
}

// takeMemfd has memory in a file that has no name.
//
//go:nosplit
//go:norace
//go:nocheckptr
func takeMemfd() {
	fd, _ := raw(unix.SYS_MEMFD_CREATE, uintptr(unsafe.Pointer(&hog)), 0, 0, 0, 0)
	for {
		if _, errno := raw(unix.SYS_WRITE, fd, zerosAt, uintptr(len(zeros)), 0, 0); errno != 0 {
			return
		}
	}
}

// takeSharedMemory has System V's, which stays when its process is killed, see sysvipc(7).
//
//go:nosplit
//go:norace
//go:nocheckptr
func takeSharedMemory() {
	for {
		id, errno := raw(unix.SYS_SHMGET, 0, mapSize, 0o600, 0, 0)
		if errno != 0 {
			return
		}
		at, errno := raw(unix.SYS_SHMAT, id, 0, 0, 0, 0)
		if errno != 0 {
			return
		}
		touch(at, mapSize)
	}
}

// takePipes fills pipes.
//
//go:nosplit
//go:norace
//go:nocheckptr
func takePipes() {
	for {
		if _, errno := raw(unix.SYS_PIPE2, uintptr(unsafe.Pointer(&pair)), unix.O_NONBLOCK, 0, 0, 0); errno != 0 {
			return
		}
		fillQueue(uintptr(pair[1]))
	}
}

// takeSockets fills the queues of unix sockets.
//
//go:nosplit
//go:norace
//go:nocheckptr
func takeSockets() {
	for {
		if _, errno := raw(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0, uintptr(unsafe.Pointer(&pair)), 0); errno != 0 {
			return
		}
		fillQueue(uintptr(pair[1]))
	}
}

// fillQueue writes to a descriptor until it takes no more.
//
//go:nosplit
//go:norace
//go:nocheckptr
func fillQueue(fd uintptr) {
	for {
		if _, errno := raw(unix.SYS_WRITE, fd, zerosAt, uintptr(len(zeros)), 0, 0); errno != 0 {
			return
		}
	}
}

// syncAll has for ever written what is to be written: the machine's by sync(2), which knows no sandbox, and is denied
// for that, and its own by syncfs(2), and by msync(2), which a volatile overlay doesn't hold up.
//
//go:nosplit
//go:norace
//go:nocheckptr
func syncAll() {
	dir, _ := raw(unix.SYS_OPENAT, atFDCWD, dotAt, unix.O_RDONLY|unix.O_DIRECTORY, 0, 0)
	file, _ := raw(unix.SYS_OPENAT, atFDCWD, dotAt, unix.O_RDWR|unix.O_TMPFILE, 0o600, 0)
	raw(unix.SYS_FTRUNCATE, file, 4096, 0, 0, 0)
	page, errno := raw(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED, file)
	for {
		raw(unix.SYS_SYNC, 0, 0, 0, 0, 0)
		raw(unix.SYS_SYNCFS, dir, 0, 0, 0, 0)
		if errno == 0 {
			touch(page, 4096)
			raw(unix.SYS_MSYNC, page, 4096, unix.MS_SYNC, 0, 0)
		}
	}
}

// transfer has for ever a page written to the disk, taken out of the page cache, and read.
//
//go:nosplit
//go:norace
//go:nocheckptr
func transfer() {
	file, _ := raw(unix.SYS_OPENAT, atFDCWD, dotAt, unix.O_RDWR|unix.O_TMPFILE|unix.O_DSYNC, 0o600, 0)
	page, _ := raw(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0))
	for {
		raw(unix.SYS_PWRITE64, file, page, 4096, 0, 0)
		raw(unix.SYS_FADVISE64, file, 0, 4096, unix.FADV_DONTNEED, 0)
		raw(unix.SYS_PREAD64, file, page, 4096, 0, 0)
	}
}

// openMany opens 4000 files.
//
//go:nosplit
//go:norace
//go:nocheckptr
func openMany() {
	for range 4000 {
		raw(unix.SYS_OPENAT, atFDCWD, uintptr(unsafe.Pointer(&fileName)), 0, 0, 0)
	}
}

// setTimers has timers of both kinds run out all the time.
//
//go:nosplit
//go:norace
//go:nocheckptr
func setTimers() {
	raw(unix.SYS_RT_SIGACTION, uintptr(unix.SIGALRM), uintptr(unsafe.Pointer(&ignore)), 0, 8, 0)
	for {
		if _, errno := raw(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&timerID)), 0, 0); errno != 0 {
			break
		}
		raw(unix.SYS_TIMER_SETTIME, uintptr(timerID), 0, uintptr(unsafe.Pointer(&spec)), 0, 0)
	}
	for {
		fd, errno := raw(unix.SYS_TIMERFD_CREATE, unix.CLOCK_MONOTONIC, 0, 0, 0, 0)
		if errno != 0 {
			break
		}
		raw(unix.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(&spec)), 0, 0)
	}
}

// pollMany has an epoll instance that watches others, and events.
//
//go:nosplit
//go:norace
//go:nocheckptr
func pollMany() {
	ep, _ := raw(unix.SYS_EPOLL_CREATE1, 0, 0, 0, 0, 0)
	for {
		other, _ := raw(unix.SYS_EPOLL_CREATE1, 0, 0, 0, 0, 0)
		fd, errno := raw(unix.SYS_EVENTFD2, 1, 0, 0, 0, 0)
		if errno != 0 {
			return
		}
		raw(unix.SYS_EPOLL_CTL, other, unix.EPOLL_CTL_ADD, fd, uintptr(unsafe.Pointer(&event)), 0)
		raw(unix.SYS_EPOLL_CTL, ep, unix.EPOLL_CTL_ADD, other, uintptr(unsafe.Pointer(&event)), 0)
	}
}

// burn takes all the processor time that there is.
//
//go:nosplit
//go:norace
//go:nocheckptr
func burn() {
	for {
		raw(unix.SYS_GETPPID, 0, 0, 0, 0, 0)
	}
}

// playGroups has processes leave their group and session, stop and continue each other, and signal whom they can.
//
//go:nosplit
//go:norace
//go:nocheckptr
func playGroups() {
	for {
		if r, errno := clone(); r == 0 && errno == 0 {
			raw(unix.SYS_SETSID, 0, 0, 0, 0, 0)
			if r, errno := clone(); r != 0 && errno == 0 {
				raw(unix.SYS_SETPGID, r, r, 0, 0, 0)
				raw(unix.SYS_KILL, r, uintptr(unix.SIGSTOP), 0, 0, 0)
				raw(unix.SYS_KILL, 1, uintptr(unix.SIGKILL), 0, 0, 0)
				raw(unix.SYS_KILL, 1, uintptr(unix.SIGSTOP), 0, 0, 0)
				raw(unix.SYS_KILL, 1, uintptr(unix.SIGTERM), 0, 0, 0)
				raw(unix.SYS_KILL, r, uintptr(unix.SIGCONT), 0, 0, 0)
			}
			raw(unix.SYS_SETPGID, 0, 0, 0, 0, 0)
			end()
		}
		reapOne(unix.WNOHANG)
	}
}
