package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
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
	// socketsRest is how many times as long as a look took it is at least until the next.
	socketsRest = 20
	// socketBytes is what a socket takes, at least. Who doesn't accept connections has theirs counted for nobody.
	socketBytes = 2 << 10
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
		if !f.OwnNetwork || start.Before(due[id]) || ctx.Err() != nil {
			continue
		}
		bytes, err := socketMemory(f.PID)
		if err == nil && bytes > minMemory {
			err = e.endGreedy(ctx, id, bytes)
		}
		due[id] = start.Add(socketsRest * time.Since(start))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrNotFound) {
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

// socketMemory is how many bytes sockets take in the network that a process has, of those that the kernel counts for no
// cgroup: the sockets themselves, and the queues of netlink's. See proc_pid_net(5).
func socketMemory(pid int) (bytes int64, err error) {
	net := filepath.Join("/proc", strconv.Itoa(pid), "net")
	stat, err := os.ReadFile(filepath.Join(net, "sockstat"))
	if err != nil {
		return 0, err
	}
	var sockets int64
	if _, err := fmt.Sscanf(string(stat), "sockets: used %d\n", &sockets); err != nil {
		return 0, fmt.Errorf("%s/sockstat: %w", net, err)
	}
	if sockets == 0 { // as most sandboxes
		return 0, nil
	}
	f, err := os.Open(filepath.Join(net, "netlink"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	bytes, err = netlinkQueues(f)
	if err != nil {
		return 0, fmt.Errorf("%s/netlink: %w", net, err)
	}
	return bytes + sockets*socketBytes, nil
}

// netlinkQueues adds up what is in the queues that the kernel's table of netlink sockets lists, below a line of titles.
func netlinkQueues(table io.Reader) (bytes int64, err error) {
	const receive, send = 4, 5
	lines := bufio.NewScanner(table)
	lines.Scan()
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) <= send {
			return 0, errors.New("a line is malformed")
		}
		r, rerr := strconv.ParseInt(words[receive], 10, 64)
		s, serr := strconv.ParseInt(words[send], 10, 64)
		if err := errors.Join(rerr, serr); err != nil {
			return 0, err
		}
		bytes += r + s
	}
	return bytes, lines.Err()
}
