package engine_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/fsapi"
)

// archiveOf makes an archive of headers. A regular file's content is its Linkname.
func archiveOf(t testing.TB, headers ...tar.Header) *bytes.Buffer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		content := ""
		if h.Typeflag == 0 {
			h.Typeflag, content, h.Linkname = tar.TypeReg, h.Linkname, ""
		}
		h.Size = int64(len(content))
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &buf
}

// content reads an archive: of each name, what its header says and what it holds.
func content(t testing.TB, r io.Reader) map[string]string {
	t.Helper()
	all := map[string]string{}
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		for key := range h.PAXRecords {
			if strings.Contains(key, "xattr") {
				t.Errorf("%q has %q", h.Name, key)
			}
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := all[h.Name]; twice {
			t.Errorf("%q is there twice", h.Name)
		}
		size := len(data)
		all[h.Name] = fmt.Sprintf("%c %o %d:%d %s%s %q %d %.100q", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Uname, h.Gname, h.Linkname, size, data)
		if h.Typeflag != tar.TypeSymlink { // on which mv and touch of busybox do as they like
			all[h.Name] += h.ModTime.UTC().String()
		}
	}
}

// manyKinds is a script that makes a tree with all that an archive holds.
const manyKinds = `umask 022; mkdir -p t/a/b/c t/empty t/fixed; cd t
	echo hello > a/f; echo '#!' > a/run; chmod 755 a/run; head -c 100000 /dev/urandom > a/b/big; : > none
	ln -s ../a/f a/link; ln -s /etc/passwd abs; ln -s nowhere broken; mkfifo pipe
	echo inner > fixed/f; echo > "$(printf 'new\nline')"; echo > "$(printf '\377\376')"; echo > é
	echo > nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn
	chmod 600 a/f; touch -d '2001-02-03 04:05:06' a/f a/b fixed; chmod 555 fixed; chmod 1777 empty; touch -d '1960-01-01' none`

func TestTarRoundTrip(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	for _, user := range []string{"root", "user"} {
		t.Run(user, func(t *testing.T) {
			t.Parallel()
			sb := create(t, eng, engine.CreateOptions{User: user, Dir: "/data"})
			sh(t, sb, manyKinds)
			sh(t, sb, `perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => "t/socket", Listen => 1) or die' && test -S t/socket`)
			var first, second bytes.Buffer
			if err := sb.FS().WriteTar("t", &first); err != nil {
				t.Fatal(err)
			}
			want := content(t, bytes.NewReader(first.Bytes()))
			if len(want) != 18 || want["socket"] != "" {
				t.Errorf("%d entries, want 18", len(want))
			}
			if err := sb.FS().ExtractTar("new/dir", bytes.NewReader(first.Bytes())); err != nil {
				t.Fatal(err)
			}
			if err := sb.FS().WriteTar("new/dir", &second); err != nil {
				t.Fatal(err)
			}
			diff(t, content(t, &second), want)

			// Again, over what is there.
			if err := sb.FS().ExtractTar("new/dir", bytes.NewReader(first.Bytes())); err != nil && (user == "root" || !errors.Is(err, syscall.EACCES)) {
				t.Error(err) // a user can't write into fixed
			}

			// GNU tar reads it, and what it writes is read.
			host := t.TempDir()
			cmd := exec.Command("tar", "-x", "-C", host, "--numeric-owner", "--same-permissions")
			cmd.Stdin = &first
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("tar: %v: %s", err, out)
			}
			out, err := exec.Command("tar", "-c", "-C", host, "--numeric-owner", ".").Output()
			if err != nil {
				t.Fatal(err)
			}
			if err := sb.FS().ExtractTar("gnu", bytes.NewReader(out)); err != nil {
				t.Fatal(err)
			}
			var third bytes.Buffer
			if err := sb.FS().WriteTar("gnu", &third); err != nil {
				t.Fatal(err)
			}
			diff(t, content(t, &third), want)
		})
	}
}

func diff(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, w := range want {
		if g := got[name]; g != w {
			t.Errorf("%q:\n got %s\nwant %s", name, g, w)
		}
	}
	for name := range got {
		if want[name] == "" {
			t.Errorf("%q is too much", name)
		}
	}
}

// Files with several names are one, in the archive and out of it.
func TestTarHardLinks(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{Dir: "/data"})
	sh(t, sb, "mkdir -p t/d; echo 1 > t/f; ln t/f t/d/g; ln t/f t/h; echo out > outside; ln outside t/out")
	var buf bytes.Buffer
	if err := sb.FS().WriteTar("t", &buf); err != nil {
		t.Fatal(err)
	}
	if err := sb.FS().ExtractTar("u", &buf); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, sb, "echo 2 > u/h; cat u/f u/d/g u/out; echo in > u/out; cat outside"); got != "2\n2\nout\nout\n" {
		t.Errorf("got %q", got)
	}
}

// TestExtractTarInsecure extracts what tries to get out of the directory.
func TestExtractTarInsecure(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	link := func(name, target string) tar.Header {
		return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}
	}
	hard := func(name, target string) tar.Header {
		return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink}
	}
	file := func(name string) tar.Header { return tar.Header{Name: name, Linkname: "new"} }
	dir := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir} }
	insecure := fsapi.ErrInsecurePath
	tests := []struct {
		name    string
		headers []tar.Header
		want    error  // nil: it is harmless
		check   string // a script that must succeed
	}{
		{"dot dot", []tar.Header{file("../outside/x")}, insecure, ""},
		{"dot dot inside", []tar.Header{file("a/../../outside/x")}, insecure, ""},
		{"dot dot that stays", []tar.Header{file("a/../x")}, insecure, ""},
		{"dot dot alone", []tar.Header{dir("..")}, insecure, ""},
		{"absolute", []tar.Header{file("/data/outside/x")}, insecure, ""},
		{"absolute directory", []tar.Header{dir("/")}, insecure, ""},
		{"through a link out", []tar.Header{link("l", "../outside"), file("l/x")}, insecure, ""},
		{"through an absolute link", []tar.Header{link("l", "/data/outside"), file("l/x")}, insecure, ""},
		{"deeper through a link", []tar.Header{link("l", "../outside"), file("l/d/x")}, insecure, ""},
		{"directory through a link", []tar.Header{link("l", ".."), dir("l/outside/d")}, insecure, ""},
		{"link through a link", []tar.Header{link("l", "../outside"), link("l/x", "/etc/passwd")}, insecure, ""},
		{"pipe through a link", []tar.Header{link("l", "../outside"), {Name: "l/x", Typeflag: tar.TypeFifo}}, insecure, ""},
		{"chain of links", []tar.Header{link("a", "b"), link("b", "c"), link("c", ".."), file("a/outside/x")}, insecure, ""},
		{"links step by step", []tar.Header{dir("d"), link("d/l", ".."), link("m", "d/l/.."), file("m/outside/x")}, insecure, ""},
		{"link of proc", []tar.Header{link("l", "/proc/self/root"), file("l/data/outside/x")}, insecure, ""},
		{"hard link out", []tar.Header{hard("h", "../outside/f")}, insecure, ""},
		{"hard link to an absolute name", []tar.Header{hard("h", "/data/outside/f")}, insecure, ""},
		{"hard link through a link", []tar.Header{link("l", "../outside"), hard("h", "l/f")}, insecure, ""},
		{"hard link in a link", []tar.Header{link("l", "../outside"), hard("l/h", "own")}, insecure, ""},
		{"file on a link", []tar.Header{link("l", "../outside/f"), file("l")}, nil, "test ! -L d/l && test new = $(cat d/l)"},
		{"file on a hard link to a link", []tar.Header{link("l", "../outside/f"), hard("h", "l"), file("h")}, nil, "test new = $(cat d/h)"},
		{"directory on a link", []tar.Header{link("l", "../outside"), dir("l"), file("l/x")}, nil, "test ! -L d/l && test new = $(cat d/l/x)"},
		{"pipe on a link", []tar.Header{link("l", "../outside/f"), {Name: "l", Typeflag: tar.TypeFifo}}, nil, "test -p d/l"},
		{"file on a planted hard link", []tar.Header{file("planted")}, nil, "test new = $(cat d/planted)"},
		{"planted link", []tar.Header{file("plantedlink/x")}, insecure, ""},
		{"link that stays", []tar.Header{dir("real"), link("l", "real"), file("l/x"), link("real/up", ".."), file("real/up/y")}, nil,
			"test new = $(cat d/real/x) && test new = $(cat d/y)"},
		{"link to itself", []tar.Header{link("l", "l"), file("l/x")}, syscall.ELOOP, ""},
		{"below a file", []tar.Header{file("f"), file("f/x")}, syscall.ENOTDIR, ""},
		{"file on a directory", []tar.Header{dir("x"), file("x")}, syscall.EISDIR, ""},
		{"directory on a file", []tar.Header{file("x"), dir("x"), file("x/y")}, nil, "test new = $(cat d/x/y)"},
		{"hard link to nothing", []tar.Header{hard("h", "none")}, fs.ErrNotExist, ""},
		{"hard link to itself", []tar.Header{file("h"), hard("h", "./h")}, nil, "test new = $(cat d/h)"},
		{"device", []tar.Header{{Name: "null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}}, errors.ErrUnsupported, ""},
		{"block device", []tar.Header{{Name: "sda", Typeflag: tar.TypeBlock, Devmajor: 8}}, errors.ErrUnsupported, ""},
		{"the directory itself", []tar.Header{{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700}, file("./x")}, nil, "test 755 = $(stat -c %a d) && test -e d/x"},
		{"the directory as a link", []tar.Header{link(".", "../outside")}, insecure, ""},
		{"setuid", []tar.Header{{Name: "s", Mode: 0o6755}, {Name: "sd/", Mode: 0o7777, Typeflag: tar.TypeDir}}, nil, "test 755 = $(stat -c %a d/s) && test 1777 = $(stat -c %a d/sd)"},
		{"long name", []tar.Header{file(strings.Repeat("n", 256))}, syscall.ENAMETOOLONG, ""},
		{"very long name", []tar.Header{file(strings.Repeat("n/", 10_000) + "x")}, syscall.ENAMETOOLONG, ""},
		{"deep", []tar.Header{file(strings.Repeat("n/", 1000) + "x")}, nil, "test -e d/" + strings.Repeat("n/", 1000) + "x"},
	}
	for _, user := range []string{"root", "user"} {
		sb := create(t, eng, engine.CreateOptions{User: user, Dir: "/data"})
		t.Cleanup(func() { sh(t, sb, "rm -rf d") }) // what is deep takes long to sweep
		for _, tt := range tests {
			t.Run(user+"/"+tt.name, func(t *testing.T) {
				sh(t, sb, "rm -rf d outside; mkdir d outside; echo old > outside/f; ln outside/f d/planted; ln -s ../outside d/plantedlink; echo own > d/own")
				err := sb.FS().ExtractTar("d", archiveOf(t, tt.headers...))
				if !errors.Is(err, tt.want) || err == nil != (tt.want == nil) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if pe := (*fs.PathError)(nil); err != nil && (!errors.As(err, &pe) || pe.Op != "extract") {
					t.Errorf("%v is no *fs.PathError of extract", err)
				}
				if got := sh(t, sb, "cat outside/f; ls -A outside; stat -c %a outside/f outside"); got != "old\nf\n644\n755\n" {
					t.Errorf("outside is %q", got)
				}
				if tt.check != "" {
					sh(t, sb, tt.check)
				}
			})
		}
	}
}

// TestExtractTarRace extracts while a process exchanges a directory and a link that leads out, all the time.
func TestExtractTarRace(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{Dir: "/data"})
	sh(t, sb, "mkdir -p d/x outside")
	// Whatever the extraction has put there goes aside, so that neither gets stuck.
	cmd := sb.Command("perl", "-e", `for ($i = 0; ; $i++) { rename("d/x", "d/t$i"); symlink("../outside", "d/x"); select(undef, undef, undef, 0.0002); unlink("d/x"); mkdir("d/x"); select(undef, undef, undef, 0.0002) }`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	archive := archiveOf(t, tar.Header{Name: "x/f", Linkname: "new"}, tar.Header{Name: "x/e/g", Linkname: "new"},
		tar.Header{Name: "x/h", Linkname: "x/f", Typeflag: tar.TypeLink}, tar.Header{Name: "x/s", Linkname: "f", Typeflag: tar.TypeSymlink})
	good, bad := 0, 0
	for start := time.Now(); (good < 300 || bad < 300) && (time.Since(start) < 2*time.Second || good*bad == 0 && time.Since(start) < 20*time.Second); {
		if err := sb.FS().ExtractTar("d", bytes.NewReader(archive.Bytes())); err == nil {
			good++
		} else {
			bad++
		}
	}
	_ = cmd.Kill()
	_ = cmd.Wait()
	t.Logf("%d times it went well, %d times it didn't", good, bad)
	if good == 0 || bad == 0 {
		t.Error("they didn't race")
	}
	if out := sh(t, sb, "ls -A outside"); out != "" {
		t.Errorf("outside: %s", out)
	}
}

func TestExtractTarKeep(t *testing.T) {
	t.Parallel()
	eng := open(t, "")
	headers := []tar.Header{{Name: "f", Mode: 0o6755, Uid: 1000, Gid: 100, ModTime: time.Unix(1e9, 0)}, {Name: "d/", Typeflag: tar.TypeDir, Mode: 0o2755, Uid: 7, Gid: 7},
		{Name: "l", Linkname: "f", Typeflag: tar.TypeSymlink, Uid: 8, Gid: 8}, {Name: "p", Typeflag: tar.TypeFifo, Mode: 0o644, Uid: 9, Gid: 9}}
	root, user := create(t, eng, engine.CreateOptions{Dir: "/data"}), create(t, eng, engine.CreateOptions{User: "user", Dir: "/data"})
	tests := []struct {
		sb   *engine.Sandbox
		keep []fsapi.Keep
		want string
	}{
		{root, nil, "755 0:0 f\n755 0:0 d\n777 0:0 l\n644 0:0 p\n"},
		{root, []fsapi.Keep{fsapi.KeepSetID}, "6755 0:0 f\n2755 0:0 d\n777 0:0 l\n644 0:0 p\n"},
		{root, []fsapi.Keep{fsapi.KeepOwners}, "755 1000:100 f\n755 7:7 d\n777 8:8 l\n644 9:9 p\n"},
		{root, []fsapi.Keep{fsapi.KeepOwners, fsapi.KeepSetID}, "6755 1000:100 f\n2755 7:7 d\n777 8:8 l\n644 9:9 p\n"},
		{user, nil, "755 1000:1000 f\n755 1000:1000 d\n777 1000:1000 l\n644 1000:1000 p\n"},
		{user, []fsapi.Keep{fsapi.KeepOwners}, ""},
	}
	for _, tt := range tests {
		sh(t, tt.sb, "rm -rf x")
		err := tt.sb.FS().ExtractTar("x", archiveOf(t, headers...), tt.keep...)
		if tt.want == "" {
			if !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%v: %v, want ErrPermission", tt.keep, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", tt.keep, err)
		}
		if got := sh(t, tt.sb, "cd x; stat -c '%a %u:%g %n' f d l p"); got != tt.want {
			t.Errorf("%v:\ngot  %q\nwant %q", tt.keep, got, tt.want)
		}
		if got := sh(t, tt.sb, "stat -c %Y x/f"); got != "1000000000\n" {
			t.Errorf("time of modification is %s", got)
		}
	}
}

func TestExtractTarMalformed(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{Dir: "/data"})
	good := archiveOf(t, tar.Header{Name: "f", Linkname: strings.Repeat("x", 2000)}).Bytes()
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	failed := errors.New("failed")
	for name, tt := range map[string]struct {
		r    io.Reader
		want error
	}{
		"nothing": {strings.NewReader(""), nil},
		"noise":   {bytes.NewReader(noise), tar.ErrHeader},
		"cut off": {bytes.NewReader(good[:1000]), io.ErrUnexpectedEOF},
		"fails":   {io.MultiReader(bytes.NewReader(good[:1000]), brokenReader{failed}), failed},
	} {
		err := sb.FS().ExtractTar("d", tt.r)
		if pe := (*fs.PathError)(nil); !errors.Is(err, tt.want) || err != nil && !errors.As(err, &pe) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	sh(t, sb, "echo > file")
	if err := sb.FS().ExtractTar("file", bytes.NewReader(good)); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("into a file: %v, want ENOTDIR", err)
	}
	for name, want := range map[string]error{"file": syscall.ENOTDIR, "none": syscall.ENOENT} {
		if err := sb.FS().WriteTar(name, io.Discard); !errors.Is(err, want) {
			t.Errorf("WriteTar of %s: %v, want %v", name, err, want)
		}
	}
	if err := sb.FS().WriteTar(".", brokenWriter{failed}); !errors.Is(err, failed) {
		t.Errorf("WriteTar to what fails: %v", err)
	}
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

// Archives stream: of a large one no more than a piece is held. It runs alone, as it counts what is allocated.
func TestTarMemory(t *testing.T) {
	sb := create(t, openLarge(t), engine.CreateOptions{Dir: "/data"})
	sh(t, sb, "mkdir -p t; head -c 50000000 /dev/zero > t/big; cd t; seq 5000 | xargs touch; mkdir -p a/b/c; cd a/b/c; seq 1000 | xargs mkdir")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	errs := make(chan error, 1)
	go func() { errs <- errors.Join(sb.FS().WriteTar("t", w), w.Close()) }()
	began := time.Now()
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() { peak <- heapPeak(stop) }()
	if err := sb.FS().ExtractTar("u", r); err != nil {
		t.Fatal(err)
	}
	close(stop)
	n := <-peak
	t.Logf("%d MiB of heap, %v", n>>20, time.Since(began))
	if n > 16<<20 {
		t.Error("that is too much")
	}
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	if got := sh(t, sb, "find u | wc -l; stat -c %s u/big"); got != "6005\n50000000\n" {
		t.Errorf("got %q", got)
	}
}

// heapPeak is how much the heap grows until stop is closed.
func heapPeak(stop chan struct{}) (peak uint64) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	base := m.HeapInuse
	for {
		runtime.ReadMemStats(&m)
		if m.HeapInuse > base {
			peak = max(peak, m.HeapInuse-base)
		}
		select {
		case <-stop:
			return peak
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// A real tree, this package's, goes in by CopyFS and by a tar pipe, and is the same there.
func TestTarOfHost(t *testing.T) {
	t.Parallel()
	sb := create(t, open(t, ""), engine.CreateOptions{Dir: "/data"})
	if err := sb.FS().CopyFS("copy", os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tar", "-c", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := sb.FS().ExtractTar("tar", bytes.NewReader(out)); err != nil {
		t.Fatal(err)
	}
	sh(t, sb, "diff -r copy tar && test -e tar/tar_test.go")
}
