package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nestbox/nestbox/lease"
)

const (
	// socketsEvery is how many times reapInterval is between looks at what sandboxes have in sockets.
	socketsEvery = 2
	// socketsRest is how many times as long as a look took it is at least until the next: a guest can have many sockets.
	socketsRest = 20
	// socketBytes is what a socket with nothing in it takes, or less.
	socketBytes = 1 << 10
)

// enforceSockets ends sandboxes whose sockets hold more than Limits.Memory of what the kernel doesn't count for it. running
// has those that live, due when each is to be looked at again.
func (e *Engine) enforceSockets(ctx context.Context, running map[string]facts, due map[string]time.Time) {
	maps.DeleteFunc(due, func(id string, _ time.Time) bool {
		_, ok := running[id]
		return !ok
	})
	for id, f := range running {
		start := time.Now()
		if !f.OwnNetwork || start.Before(due[id]) {
			continue
		}
		bytes, err := socketMemory(f.PID)
		due[id] = start.Add(socketsRest * time.Since(start))
		if err == nil && bytes > minMemory {
			err = e.endGreedy(ctx, id, bytes)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrNotFound) {
			e.log.Error("look at sockets", "sandbox", id, "error", err)
		}
	}
}

// endGreedy ends a sandbox whose sockets hold so much, if that is over its limit now.
func (e *Engine) endGreedy(ctx context.Context, id string, bytes int64) error {
	f, err := e.state.readFacts(id)
	if err != nil || f.Limits.Memory <= 0 || bytes <= f.Limits.Memory || !f.alive() {
		return err
	}
	e.log.Warn("sockets hold more than Limits.Memory", "sandbox", id, "bytes", bytes, "limit", f.Limits.Memory)
	return e.kill(ctx, id, lease.OOM)
}

// socketTables are the files of a process's network, see proc_pid_net(5), that list sockets whose queues the kernel counts for
// no cgroup, on version 1 at least, and which of their fields say how long these are: in bytes each, or two of them in
// hexadecimal.
var socketTables = []struct {
	name   string
	fields []int
}{
	{"netlink", []int{4, 5}},
	{"icmp", []int{4}},
	{"icmp6", []int{4}},
	{"udp", []int{4}},
	{"udp6", []int{4}},
}

// socketMemory is how many bytes such sockets hold in the network that a process has. Most sandboxes have no sockets.
func socketMemory(pid int) (bytes int64, err error) {
	net := filepath.Join("/proc", strconv.Itoa(pid), "net")
	stat, err := os.ReadFile(filepath.Join(net, "sockstat"))
	if err != nil || strings.HasPrefix(string(stat), "sockets: used 0\n") {
		return 0, err
	}
	for _, table := range socketTables {
		n, err := queues(filepath.Join(net, table.name), table.fields)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the kernel may have no IPv6
			return 0, err
		}
		bytes += n
	}
	return bytes, nil
}

// queues adds up what is in the sockets that a table lists, below a line of titles.
func queues(table string, fields []int) (bytes int64, err error) {
	f, err := os.Open(table)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan()
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		bytes += socketBytes
		for _, i := range fields {
			if i >= len(words) {
				return 0, fmt.Errorf("%s: a line is malformed", table)
			}
			n, err := queue(words[i])
			if err != nil {
				return 0, fmt.Errorf("%s: %w", table, err)
			}
			bytes += n
		}
	}
	return bytes, lines.Err()
}

// queue reads the length of a queue, or, with a colon between them, of one to send and one to receive.
func queue(word string) (int64, error) {
	send, receive, two := strings.Cut(word, ":")
	if !two {
		return strconv.ParseInt(word, 10, 64)
	}
	s, serr := strconv.ParseInt(send, 16, 64)
	r, rerr := strconv.ParseInt(receive, 16, 64)
	return s + r, errors.Join(serr, rerr)
}
