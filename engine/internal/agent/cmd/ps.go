//go:build linux

package main

import (
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nestbox/nestbox/engine/internal/wire"
)

// ticks is how many of proc_pid_stat(5)'s clock ticks a second has; Linux gives no other number to programs.
const ticks = 100

// maxName is the longest name of a user that is told.
const maxName = 256

// processes tells what runs in the sandbox, but for the agent, and the commands that have ended and can be
// attached to: as much as fits into a message. It is answered aside.
func (q *request) processes() error {
	after := int(q.r.Uint())
	if err := q.r.Done(); err != nil {
		return err
	}
	return q.slow(func(q *request) error {
		m := q.ok()
		err := slow.do(func() error {
			pids, err := listPIDs()
			if err == nil {
				q.putProcesses(m, after, pids)
			}
			return err
		})
		if err != nil {
			return q.fail(errnoOf(err), "")
		}
		return q.send(m)
	})
}

func (q *request) putProcesses(m *wire.Message, after int, pids []int) {
	spooled := map[int]*spool{}
	q.spools.mu.Lock()
	for _, sp := range q.spools.list {
		spooled[sp.about.PID] = sp
		pids = append(pids, sp.about.PID)
	}
	q.spools.mu.Unlock()
	slices.Sort(pids)
	names := map[string]string{}
	eachLine("/etc/passwd", 7, func(f []string) bool {
		if _, ok := names[f[2]]; !ok && len(f[0]) <= maxName {
			names[f[2]] = f[0]
		}
		return true
	})
	for _, pid := range slices.Compact(pids) {
		if pid <= after || pid == 1 {
			continue
		}
		p := describe(pid)
		p.Command = q.procs.started(pid)
		switch sp := spooled[pid]; {
		case sp == nil:
		case !sp.ended():
			p.Attachable = true
		case p.PID == 0: // else the number is another's now
			p = sp.about
			p.Command, p.Attachable = true, true
		}
		if p.PID == 0 {
			continue // it has just ended
		}
		if name := names[p.User]; name != "" {
			p.User = name
		}
		if p.Put(m); len(m.Bytes()) > wire.MaxMessage-2*wire.MaxArgs {
			return
		}
	}
}

func listPIDs() (pids []int, err error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// describe reads what proc(5) has of a process. User is its number. PID is 0 if it is gone.
func describe(pid int) (p wire.Process) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat := readAll(dir+"/stat", 4<<10)
	// The second field is a name in parentheses that may hold anything.
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return p
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) < 20 {
		return p
	}
	p.Name, p.State = stat[open+1:end], fields[0][0]
	p.PPID, _ = strconv.Atoi(fields[1])
	start, _ := strconv.ParseInt(fields[19], 10, 64)
	p.Start = bootTime() + start*int64(time.Second/ticks)
	// The second is the effective one, see proc_pid_status(5).
	if _, uids, ok := strings.Cut(readAll(dir+"/status", 4<<10), "\nUid:"); ok {
		if f := strings.Fields(uids); len(f) > 1 {
			p.User = f[1]
		}
	}
	if args := readAll(dir+"/cmdline", wire.MaxArgs/2); args != "" {
		p.Args = strings.Split(strings.TrimSuffix(args, "\x00"), "\x00")
	}
	p.PID = pid
	return p
}

// bootTime is when the clock that processes' start is told by was 0, in ns since the epoch.
func bootTime() int64 { return time.Now().UnixNano() - int64(now()) }

// cut gives as many of the arguments, and of the last of them, as a message may have.
func cut(args []string) (out []string) {
	left := wire.MaxArgs / 2
	for _, arg := range args {
		if len(arg) >= left {
			return append(out, arg[:left])
		}
		left -= len(arg) + 1
		out = append(out, arg)
	}
	return out
}

// commOf is the name that the kernel gives to who executes the file.
func commOf(file string) string {
	name := path.Base(file)
	return name[:min(len(name), 15)]
}

// readAll gives the beginning of a file of the kernel's; empty if there is none.
func readAll(name string, limit int64) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	data, _ := io.ReadAll(io.LimitReader(f, limit))
	return string(data)
}
