package engine_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/engine/internal/wire"
)

// canonical is the canonical form of a UUID of version 7, see RFC 9562.
var canonical = regexp.MustCompile(`\A[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\z`)

// FuzzID checks that an ID is what Create gives, and so one element of a path, and nothing else is.
func FuzzID(f *testing.F) {
	id, err := engine.NewID()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(id)
	f.Fuzz(func(t *testing.T, id string) {
		if got, want := engine.ValidID(id), canonical.MatchString(id); got != want {
			t.Errorf("%q is valid: %v, want %v", id, got, want)
		}
	})
}

// wantInvalid checks that an error tells what is wrong, in few words.
func wantInvalid(t *testing.T, err error) {
	t.Helper()
	var invalid *engine.InvalidError
	if !errors.Is(err, engine.ErrKeepAliveTooLong) && (!errors.As(err, &invalid) || !errors.Is(err, fs.ErrInvalid) || invalid.Field == "" || invalid.Reason == "") {
		t.Errorf("got %v, want an *InvalidError with field and reason", err)
	}
	if len(err.Error()) > 2000 || !utf8.ValidString(err.Error()) {
		t.Errorf("an error of %d bytes: %.80q", len(err.Error()), err)
	}
}

// FuzzMetadata checks that metadata that is taken is within its bounds, and the same after it was written down.
func FuzzMetadata(f *testing.F) {
	f.Add("user", "42", uint16(0))
	f.Fuzz(func(t *testing.T, key, value string, more uint16) {
		md := map[string]string{key: value}
		for i := range more {
			md[key+string(rune('a'+i))] = value
		}
		if err := engine.CheckMetadata(md); err != nil {
			wantInvalid(t, err)
			return
		}
		size := 0
		for k, v := range md {
			size += len(k) + len(v)
		}
		if len(md) > 256 || size > 64<<10 || key == "" || len(key) > 256 {
			t.Errorf("takes %d entries of %d bytes, with the key %.300q", len(md), size, key)
		}
		data, err := json.Marshal(md)
		if err != nil {
			t.Fatal(err)
		}
		var again map[string]string
		if err := json.Unmarshal(data, &again); err != nil || !maps.Equal(again, md) {
			t.Errorf("wrote %.200q and read %.200q, %v", md, again, err)
		}
	})
}

// FuzzCreateOptions checks that options that are taken are within what the kernel takes, and that an error says
// which is not.
func FuzzCreateOptions(f *testing.F) {
	f.Fuzz(func(t *testing.T, template, user, dir, hostname, env string, keepAlive, grace, bound, memory int64, cpus float64, processes, files, disk, network int64) {
		o := engine.CreateOptions{
			Template: template, User: user, Dir: dir, Hostname: hostname, Env: strings.Split(env, "\n"), Network: engine.Network(network),
			KeepAlive: time.Duration(keepAlive), Grace: time.Duration(grace),
			Limits: engine.Limits{Memory: memory, CPUs: cpus, Processes: int(processes), OpenFiles: int(files), Disk: disk},
		}
		if env == "" {
			o.Env = nil
		}
		l, err := o.Check(time.Duration(bound), engine.Limits{Memory: 1 << 30, CPUs: 1, Processes: 64, OpenFiles: 64, Disk: -1})
		if err != nil {
			wantInvalid(t, err)
			return
		}
		for name, d := range map[string]time.Duration{"keep-alive": o.KeepAlive, "grace": o.Grace} {
			if d < 0 || bound >= 0 && d > time.Duration(bound) {
				t.Errorf("takes a %s of %v, the bound is %v", name, d, time.Duration(bound))
			}
		}
		if quota := math.Round(l.CPUs * 100_000); l.CPUs == 0 || l.CPUs > 0 && (quota < 1000 || quota > 1<<44) || math.IsNaN(l.CPUs) {
			t.Errorf("takes %v processors", l.CPUs) // the kernel doesn't, see cpu.max in its cgroup-v2 document
		}
		if l.Memory >= 0 && l.Memory < 1<<20 || l.Processes >= 0 && (l.Processes < 8 || l.Processes > 4194304) || l.OpenFiles == 0 || l.Disk == 0 || l.Disk > 1<<40 {
			t.Errorf("takes the limits %+v", l)
		}
		if _, err := json.Marshal(l); err != nil {
			t.Errorf("takes limits that can't be written down: %v", err)
		}
		checkTexts(t, o)
	})
}

// checkTexts checks those options that are texts.
func checkTexts(t *testing.T, o engine.CreateOptions) {
	t.Helper()
	if all := o.Template + o.User + o.Hostname; !utf8.ValidString(o.Template) || strings.ContainsAny(o.User+o.Dir+o.Hostname, "\x00") || strings.Contains(o.User, "\n") {
		t.Errorf("takes the names %q", all)
	}
	if o.Dir != "" && (o.Dir[0] != '/' || len(o.Dir) > 4095) {
		t.Errorf("takes the directory %.80q", o.Dir)
	}
	for _, kv := range o.Env {
		if key, _, ok := strings.Cut(kv, "="); !ok || key == "" || strings.Contains(kv, "\x00") {
			t.Errorf("takes the variable %q", kv)
		}
	}
	for elem := range strings.SplitSeq(o.Hostname, ".") {
		if o.Hostname != "" && (elem == "" || strings.Trim(elem, "-") != elem || strings.ContainsAny(elem, "_/ \n") || len(o.Hostname) > 63) {
			t.Errorf("takes the host name %q", o.Hostname)
		}
	}
}

// FuzzCommand checks that a command that can be started is what its agent is told, with the environment that os/exec
// gives.
func FuzzCommand(f *testing.F) {
	f.Fuzz(func(t *testing.T, path, args, env string, spool int64, rows, cols uint16) {
		c := &engine.Cmd{Path: path, Args: strings.Split(args, "\n"), Env: strings.Split(env, "\n"), Spool: spool}
		std := &exec.Cmd{Env: slices.Clone(c.Env)}
		got, err := c.Prepare()
		if bad := path == "" || spool < 0 || spool > engine.MaxSpool || strings.Contains(env, "\x00"); bad != (err != nil) {
			t.Fatalf("error is %v, want one: %v", err, bad)
		}
		if want := std.Environ(); !slices.Equal(c.Environ(), want) || err == nil && !slices.Equal(got.Env, want) {
			t.Errorf("environment of %q is %q, want %q", c.Env, c.Environ(), want)
		}
		if err != nil {
			return
		}
		size := engine.WindowSize{Rows: rows, Cols: cols}.OrDefault()
		if size.Rows == 0 || size.Cols == 0 || rows != 0 && size.Rows != rows || cols != 0 && size.Cols != cols {
			t.Errorf("%d rows and %d columns became %+v", rows, cols, size)
		}
		m := wire.New(nil, wire.OpStart, 1)
		got.Put(m)
		_, _, r, err := wire.Read(m.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		told := wire.ReadCommand(r)
		if r.Done() != nil || told.Path != path || !slices.Equal(told.Args, c.Args) || !slices.Equal(told.Env, got.Env) || told.Inherit {
			t.Errorf("the agent is told %+v, want %+v", told, got)
		}
	})
}

// FuzzHosts checks that what a sandbox's /etc/hosts says of a name is an address that stands there beside it.
func FuzzHosts(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		name = strings.ToLower(name)
		ips, err := engine.FindHost(bytes.NewReader(data), name)
		if err != nil && !strings.Contains(err.Error(), "too long") {
			t.Errorf("error is %v", err)
		}
		for _, ip := range ips {
			if !ip.IsValid() || ip.Is4In6() {
				t.Errorf("%v is no address to dial", ip)
			}
		}
		if len(ips) > bytes.Count(data, []byte("\n"))+1 || len(ips) > 0 && !strings.Contains(strings.ToLower(string(data)), name) {
			t.Errorf("%q has %v", name, ips)
		}
	})
}
