package engine_test

import (
	"bytes"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nestbox/nestbox/engine"
)

// TestDirFS runs fstest.TestFS on a made tree and on those that programs find in base.
func TestDirFS(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{Dir: "/data"})
	sh(t, sb, manyKinds+"; rm pipe broken; mv \"$(printf '\\377\\376')\" odd")
	tests := []struct {
		dir  string
		want []string
	}{
		{"t", []string{"a/f", "a/b/c", "empty", "abs", "new\nline"}},
		{"/data/t/", []string{"a/f"}},
		{"/etc", []string{"passwd", "group"}},
		{"/usr/share/zoneinfo", []string{"UTC", "Europe/Berlin"}},
		{"/usr/share/alsa", nil},
		{"/usr/share/perl5", nil},
	}
	for _, tt := range tests {
		t.Run(tt.dir, func(t *testing.T) {
			fsys := sb.FS().DirFS(tt.dir)
			if tt.want == nil {
				list, err := fs.ReadDir(fsys, ".")
				if err != nil || len(list) == 0 {
					t.Skipf("the host has none: %v", err)
				}
				tt.want = []string{list[0].Name()}
			}
			began := time.Now()
			if err := fstest.TestFS(fsys, tt.want...); err != nil {
				t.Error(err)
			}
			t.Logf("took %v", time.Since(began))
		})
	}
}

// TestDirFSOfShare walks the whole of base's /usr/share, which is the host's. fstest.TestFS, which reads each file
// some ten times and also byte by byte, would take minutes for it.
func TestDirFSOfShare(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{})
	walk := func(fsys fs.FS) (list []string) {
		err := fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			fi, err := d.Info()
			if err == nil {
				list = append(list, fmt.Sprint(path, fi.Mode(), fi.Size(), fi.ModTime()))
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		return list
	}
	began := time.Now()
	got := walk(sb.FS().DirFS("/usr/share"))
	took := time.Since(began)
	began = time.Now()
	want := walk(os.DirFS("/usr/share"))
	t.Logf("%d entries in %v, on the host in %v", len(got), took, time.Since(began))
	if !slices.Equal(got, want) {
		t.Errorf("%d entries, on the host %d, and they differ", len(got), len(want))
	}
}

// What takes an fs.FS works on a DirFS.
func TestDirFSUsed(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{Dir: "/data"})
	sh(t, sb, `mkdir -p site/sub; echo '<p>{{.}}</p>' > site/page.tmpl; echo hello > site/sub/f.txt; head -c 300000 /dev/zero > site/big`)
	fsys := sb.FS().DirFS("site")

	srv := httptest.NewServer(http.FileServerFS(fsys))
	defer srv.Close()
	for _, tt := range []struct {
		path, ranges string
		status       int
		want         string
	}{
		{"/sub/f.txt", "", 200, "hello\n"},
		{"/sub/f.txt", "bytes=1-2", 206, "el"},
		{"/big", "bytes=299999-", 206, "\x00"},
		{"/sub/", "", 200, "f.txt"},
		{"/none", "", 404, ""},
		{"/../../etc/passwd", "", 404, ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+tt.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.ranges != "" {
			req.Header.Set("Range", tt.ranges)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != tt.status || !strings.Contains(string(body), tt.want) {
			t.Errorf("%s: %d %.100q, %v", tt.path, resp.StatusCode, body, err)
		}
	}

	tmpl, err := template.ParseFS(fsys, "*.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := tmpl.Execute(&buf, "<x>"); err != nil || buf.String() != "<p>&lt;x&gt;</p>\n" {
		t.Errorf("template: %q, %v", buf.String(), err)
	}

	var names []string
	err = fs.WalkDir(fsys, ".", func(path string, _ fs.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if want := []string{".", "big", "page.tmpl", "sub", "sub/f.txt"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("WalkDir: %q, %v, want %q", names, err, want)
	}
}

func TestExists(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{User: "user", Dir: "/data"})
	sh(t, sb, "echo > f; ln -s f l; ln -s none broken; ln -s loop loop; mkdir closed; echo > closed/f; chmod 0 closed")
	for _, tt := range []struct {
		name   string
		exists bool
		err    error
	}{
		{"f", true, nil}, {"l", true, nil}, {".", true, nil}, {"none", false, nil}, {"broken", false, nil}, {"none/x", false, nil},
		{"f/x", false, syscall.ENOTDIR}, {"loop", false, syscall.ELOOP}, {"closed/f", false, fs.ErrPermission},
	} {
		exists, err := sb.FS().Exists(tt.name)
		if exists != tt.exists || !errors.Is(err, tt.err) {
			t.Errorf("Exists(%q) = %v, %v, want %v, %v", tt.name, exists, err, tt.exists, tt.err)
		}
	}
}

func TestReplaceFile(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	sb := create(t, eng, engine.CreateOptions{User: "user", Dir: "/data"})
	files := sb.FS()
	sh(t, sb, "echo old > target; ln -s target link; mkdir d fixed; chmod 555 fixed; umask 0; echo > fixedfile; chmod 444 fixedfile")
	long := strings.Repeat("n", 255)
	for _, tt := range []struct {
		name string
		want error
	}{
		{"new", nil}, {"new", nil}, {"link", nil}, {"d/f", nil}, {"/data/abs", nil}, {long, nil}, {"fixedfile", nil},
		{"d", fs.ErrExist}, {"fixed/f", fs.ErrPermission}, {"none/f", fs.ErrNotExist}, {"", fs.ErrNotExist}, {"new/x", syscall.ENOTDIR},
		{"d/", syscall.EISDIR}, {long + "n", syscall.ENAMETOOLONG},
	} {
		data := []byte("content of " + tt.name)
		err := files.ReplaceFile(tt.name, data, 0o666)
		if pe := (*fs.PathError)(nil); !errors.Is(err, tt.want) || err == nil != (tt.want == nil) || err != nil && !errors.As(err, &pe) {
			t.Errorf("ReplaceFile(%.10q): %v, want %v", tt.name, err, tt.want)
		}
		if err != nil {
			continue
		}
		got, err := files.ReadFile(tt.name)
		fi, serr := files.Lstat(tt.name)
		if err != nil || serr != nil || !bytes.Equal(got, data) || fi.Mode() != 0o644 {
			t.Errorf("%.10q holds %q, %v, and is %v, %v", tt.name, got, err, fi, serr)
		}
	}
	if got := sh(t, sb, "cat target; find . -name '.replace-*'"); got != "old\n" {
		t.Errorf("got %q, want the link's target as it was, and nothing left", got)
	}

	// Who reads sees all of one content.
	if err := files.ReplaceFile("whole", bytes.Repeat([]byte{'0'}, 50_000), 0o644); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for i := range 20 {
				if err := files.ReplaceFile("whole", bytes.Repeat([]byte{byte('a' + n)}, 50_000+i), 0o644); err != nil {
					t.Error(err)
				}
				got, err := files.ReadFile("whole")
				if err != nil || len(got) < 50_000 || bytes.Count(got, got[:1]) != len(got) {
					t.Errorf("read %d bytes, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
}

// TestLargeDirectory lists directories piece by piece: no more than a piece is held. It runs alone, as it counts
// what is allocated.
func TestLargeDirectory(t *testing.T) { largeDirectory(t, 100_000) }

// TestMillionEntries is TestLargeDirectory with a million entries.
func TestMillionEntries(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long: not with -short")
	}
	largeDirectory(t, 1_000_000)
}

func largeDirectory(t *testing.T, n int) {
	sb := create(t, open(t, ""), engine.CreateOptions{Limits: engine.Limits{Memory: 2 << 30}})
	sh(t, sb, fmt.Sprintf("mkdir /dev/shm/d; cd /dev/shm/d; perl -e 'open(F, \">\", 1); for (2..%d) { link(1, $_) or die $! }'", n)) // in memory: disks take long
	dir, err := sb.FS().Open("/dev/shm/d")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	began := time.Now()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	base, peak, seen := m.HeapInuse, uint64(0), 0
	for pieces := 1; ; pieces++ {
		list, err := dir.ReadDir(1000)
		seen += len(list)
		if err == io.EOF {
			break
		}
		if err != nil || len(list) > 1000 {
			t.Fatal(len(list), err)
		}
		if pieces%50 == 0 {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
		}
	}
	took := time.Since(began)
	t.Logf("%d entries in %v, %d KiB of heap", seen, took, int64(peak-base)>>10)
	if seen != n {
		t.Errorf("%d entries, want %d", seen, n)
	}
	if peak > base+16<<20 {
		t.Errorf("%d MiB of heap", (peak-base)>>20)
	}
}

// A file of the kernel's own is read, but never written by the host, whose rights that would have.
func TestKernelFiles(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{Dir: "/data"})
	for _, name := range []string{"/proc/meminfo", "/proc/version", "/proc/mounts", "/sys/kernel/mm/transparent_hugepage/enabled"} {
		if _, err := sb.FS().Stat(name); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if data, err := sb.FS().ReadFile(name); err != nil || len(data) == 0 {
			t.Errorf("read %s: %q, %v", name, data, err)
		}
	}
	cmd := sb.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, entry := range []string{"oom_score_adj", "coredump_filter"} {
		name := fmt.Sprintf("/proc/%d/%s", cmd.Pid(), entry)
		before := sh(t, sb, "ln -sf "+name+" hello.txt; cat hello.txt")
		if err := sb.FS().WriteFile("hello.txt", []byte("-1"), 0o644); !errors.Is(err, syscall.EPERM) {
			t.Errorf("write %s: %v, want EPERM", entry, err)
		}
		if after := sh(t, sb, "cat hello.txt"); after != before {
			t.Errorf("%s was %s and is %s", entry, before, after)
		}
	}
	_ = cmd.Kill()
	_ = cmd.Wait()
}

// What is no file or directory is an error, at once.
func TestSpecialFiles(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{Dir: "/data"})
	sh(t, sb, `mkfifo pipe; ln -s pipe link; perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => "socket", Listen => 1) or die'`)
	for _, name := range []string{"pipe", "link", "socket", "/dev/null", "/dev/zero", "/dev/tty"} {
		for _, flag := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR} {
			f, err := sb.FS().OpenFile(name, flag, 0)
			if err == nil {
				t.Errorf("open %s: %v, no error", name, f.Name())
			}
		}
		if fi, err := sb.FS().Stat(name); err != nil || fi.Mode().IsRegular() {
			t.Errorf("stat %s: %v, %v", name, fi, err)
		}
	}
	var errno syscall.Errno
	if _, err := sb.FS().ReadFile("pipe"); !errors.As(err, &errno) || errno != syscall.EINVAL {
		t.Errorf("read: %v, want EINVAL", err)
	}
}

// Files stay good for who has them when the sandbox has ended, and everything else says why it is not.
func TestFilesAfterwards(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{Dir: "/data"})
	files := sb.FS()
	sh(t, sb, "echo content > f; mkdir d")
	f, err := files.Open("f")
	if err != nil {
		t.Fatal(err)
	}
	d, err := files.Open("d")
	if err != nil {
		t.Fatal(err)
	}
	if err := sb.Close(); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(f); err != nil || string(data) != "content\n" {
		t.Errorf("read: %q, %v", data, err)
	}
	var list []error
	add := func(err error) { list = append(list, err) }
	_, err = f.Stat()
	add(err)
	_, err = d.ReadDir(1)
	add(err)
	add(f.Chmod(0o600))
	add(files.ExtractTar("x", strings.NewReader("")))
	add(files.WriteTar(".", io.Discard))
	add(files.ReplaceFile("x", nil, 0o644))
	add(files.CopyFS("x", fstest.MapFS{"f": {}}))
	add(files.Link("f", "g"))
	add(files.Truncate("f", 1))
	add(files.Chtimes("f", time.Now(), time.Now()))
	_, err = files.MkdirTemp("", "x")
	add(err)
	_, err = fs.ReadFile(files.DirFS("."), "f")
	add(err)
	for _, err := range files.Watch(t.Context(), ".", true) {
		add(err)
	}
	for i, err := range list {
		if pe := (*fs.PathError)(nil); !errors.Is(err, engine.ErrEnded) || !errors.As(err, &pe) {
			t.Errorf("%d: %v, want ErrEnded in an *fs.PathError", i, err)
		}
	}
	if err := errors.Join(f.Close(), d.Close()); err != nil {
		t.Error(err)
	}
}

// shouting is a file that reads, or writes, something else.
type shouting struct{ *os.File }

func (s shouting) Read(b []byte) (int, error) {
	n, err := s.File.Read(b)
	copy(b, bytes.ToUpper(b[:n]))
	return n, err
}

func (s shouting) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{s})
}

func (s shouting) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{s}, r)
}

func (s shouting) Write(b []byte) (int, error) { return s.File.Write(bytes.ToUpper(b)) }

// TestCopy copies between all kinds of files by io.Copy and io.CopyN. Content and offsets are then as they must be.
func TestCopy(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{Dir: "/data"})
	other := create(t, open(t, ""), engine.CreateOptions{Dir: "/data"})
	dir := t.TempDir()
	data := bytes.Repeat([]byte("some text, "), 100_000)
	type rws interface {
		io.ReadWriteSeeker
		io.Closer
	}
	host := func(name string, flag int) (rws, error) { return os.OpenFile(dir+"/"+name, flag, 0o644) }
	kinds := map[string]func(name string, flag int) (rws, error){
		"host":  host,
		"guest": func(name string, flag int) (rws, error) { return sb.FS().OpenFile(name, flag, 0o644) },
		"other": func(name string, flag int) (rws, error) { return other.FS().OpenFile(name, flag, 0o644) },
		"shouting": func(name string, flag int) (rws, error) {
			f, err := os.OpenFile(dir+"/shout"+name, flag, 0o644)
			return shouting{f}, err
		},
		"hidden": func(name string, flag int) (rws, error) {
			f, err := host("hidden"+name, flag)
			return struct{ rws }{f}, err
		},
	}
	for from, openFrom := range kinds {
		for to, openTo := range kinds {
			for _, extra := range []int{0, os.O_APPEND} {
				for _, n := range []int64{-1, 0, 7, 50_000, 1 << 30} {
					name := fmt.Sprintf("%s to %s, %#x, %d", from, to, extra, n)
					r, err := openFrom("from", os.O_RDWR|os.O_CREATE|os.O_TRUNC)
					if err != nil {
						t.Fatal(err)
					}
					w, err := openTo("to", os.O_RDWR|os.O_CREATE|os.O_TRUNC|extra)
					if err != nil {
						t.Fatal(err)
					}
					_, err = r.Write(data)
					_, serr := r.Seek(3, io.SeekStart)
					_, werr := io.WriteString(w, "abc")
					if err := errors.Join(err, serr, werr); err != nil {
						t.Fatal(err)
					}
					want := data[3:]
					var got int64
					if n < 0 {
						got, err = io.Copy(w, r)
					} else {
						if got, err = io.CopyN(w, r, n); n > int64(len(want)) && err == io.EOF {
							err = nil
						}
						want = want[:min(n, int64(len(want)))]
					}
					if err != nil || got != int64(len(want)) {
						t.Errorf("%s: copied %d bytes, %v, want %d", name, got, err, len(want))
					}
					roff, _ := r.Seek(0, io.SeekCurrent)
					if woff, _ := w.Seek(0, io.SeekCurrent); roff < 3+got || n >= 0 && roff > 3+got+64<<10 || woff != 3+got {
						t.Errorf("%s: offsets are %d and %d, want %d", name, roff, woff, 3+got)
					}
					_, _ = w.Seek(0, io.SeekStart)
					all, err := io.ReadAll(w)
					want = slices.Concat([]byte("abc"), want)
					if from == "shouting" || to == "shouting" {
						want, all = bytes.ToUpper(want), append(bytes.ToUpper(all[:3]), all[3:]...)
						if to == "shouting" {
							all = bytes.ToUpper(all)
						}
					}
					if err != nil || !bytes.Equal(all, want) {
						t.Errorf("%s: %d bytes %.20q, %v, want %d %.20q", name, len(all), all, err, len(want), want)
					}
					_, _ = r.Close(), w.Close()
				}
			}
		}
	}
}
