//go:build linux

package main

import (
	"os"
	"strings"

	"github.com/nestbox/nestbox/engine/internal/wire"
	"golang.org/x/sys/unix"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// settings is what the sandbox was configured with; it doesn't change.
type settings struct {
	cred *credential
	dir  string
	// atHome is true if dir wasn't asked for, and is the user's home.
	atHome bool
	env    []string // of a command of the sandbox's user
	own    []string // what of env was asked for
}

// configure works out what the sandbox's commands start with. A working directory that isn't there is
// made, for the user.
func configure(cfg wire.Config) (*settings, *startError) {
	cred, ok := lookupUser(cfg.User)
	if !ok {
		return nil, &startError{wire.StageUser, unix.ENOENT}
	}
	s := &settings{cred: cred, dir: cfg.Dir, env: environ(cred, cfg.Env), own: cfg.Env}
	if s.dir == "" {
		s.dir, s.atHome = cred.home, true
		if !isDirectory(s.dir) {
			s.dir = "/"
		}
		return s, nil
	}
	var st unix.Stat_t
	err := unix.Stat(s.dir, &st)
	if err == unix.ENOENT {
		if err = os.MkdirAll(s.dir, 0o755); err == nil {
			err = os.Lchown(s.dir, int(cred.uid), int(cred.gid))
		}
	} else if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = unix.ENOTDIR
	}
	if err != nil {
		return nil, &startError{wire.StageChdir, errnoOf(err)}
	}
	return s, nil
}

func isDirectory(name string) bool {
	var st unix.Stat_t
	return unix.Stat(name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// environ is env below the variables that every command gets.
func environ(cred *credential, env []string) []string {
	all := []string{"PATH=" + defaultPath, "HOME=" + cred.home}
	if cred.name != "" {
		all = append(all, "USER="+cred.name)
	}
	return unique(append(all, env...))
}

// unique drops all but the last value of each variable.
func unique(all []string) (out []string) {
	last := map[string]int{}
	for i, kv := range all {
		key, _, _ := strings.Cut(kv, "=")
		last[key] = i
	}
	for i, kv := range all {
		if key, _, _ := strings.Cut(kv, "="); last[key] == i {
			out = append(out, kv)
		}
	}
	return out
}
