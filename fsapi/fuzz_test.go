package fsapi_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nestbox/nestbox/fsapi"
)

// recorder is an agent that puts nothing anywhere, and looks at what it is asked for.
type recorder struct {
	fsapi.Agent // what is not below isn't asked for

	t     *testing.T
	dir   string
	reads sync.WaitGroup
	open  []*os.File // of which each is to be closed
	names []string
}

func (r *recorder) MkdirAll(string, uint32) error              { return nil }
func (r *recorder) Open(string, int, uint32) (*os.File, error) { return r.give(os.Open(r.dir)) }
func (r *recorder) SetAttr(f *os.File, attr fsapi.Attr) error  { r.check(attr); return nil }
func (r *recorder) give(f *os.File, err error) (*os.File, error) {
	r.open = append(r.open, f)
	return f, err
}

func (r *recorder) check(attr fsapi.Attr) {
	if attr.Mode >= 0 && attr.Mode&^0o1777 != 0 || attr.UID != -1 || attr.GID != -1 {
		r.t.Errorf("asks for %+v, which nobody asked to keep", attr)
	}
}

func (r *recorder) Place(_ *os.File, p fsapi.Place) (*os.File, error) {
	r.names = append(r.names, p.Name)
	if !filepath.IsLocal(p.Name) || filepath.Clean(p.Name) != p.Name || p.Name == "." || strings.Contains(p.Name, "\x00") || len(p.Name) >= 4096 {
		r.t.Errorf("asks for the name %q", p.Name)
	}
	r.check(p.Attr)
	switch p.Kind {
	case 0:
		if !filepath.IsLocal(p.Target) && p.Target != "" {
			r.t.Errorf("asks for a hard link to %q", p.Target)
		}
	case 1, 10:
	case 4:
		return r.give(os.Open(r.dir))
	case 8:
		return r.file()
	default:
		r.t.Errorf("asks for the kind %d", p.Kind)
	}
	return nil, nil
}

// file is one that takes 1 MiB: an archive can claim a file of any size, of nothing but holes.
func (r *recorder) file() (*os.File, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	r.reads.Go(func() {
		_, _ = io.CopyN(io.Discard, out, 1<<20)
		_ = out.Close()
	})
	return r.give(in, nil)
}

// extract extracts an archive to a recorder.
func extract(t *testing.T, dir string, archive []byte) (*recorder, error) {
	r := &recorder{t: t, dir: dir}
	err := fsapi.New(r).ExtractTar("dir", bytes.NewReader(archive))
	r.reads.Wait()
	var perr *fs.PathError
	if err != nil && (!errors.As(err, &perr) || perr.Op != "extract") {
		t.Errorf("got %v, want an *fs.PathError of extract", err)
	}
	for _, f := range r.open {
		if !errors.Is(f.Close(), fs.ErrClosed) {
			t.Error("a file is left open")
		}
	}
	return r, err
}

// FuzzExtractTar reads what may be an archive. An agent is asked for nothing outside of the directory, no setuid,
// and no owner.
func FuzzExtractTar(f *testing.F) {
	dir := f.TempDir()
	for _, headers := range [][]tar.Header{
		{{Typeflag: tar.TypeReg, Name: "a/b", Mode: 0o6755}, {Typeflag: tar.TypeDir, Name: "d/"}, {Typeflag: tar.TypeReg, Name: "d/f"}},
		{{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "/etc"}, {Typeflag: tar.TypeReg, Name: "l/passwd"}},
		{{Typeflag: tar.TypeLink, Name: "h", Linkname: "../x"}},
		{{Typeflag: tar.TypeReg, Name: "../x"}},
		{{Typeflag: tar.TypeReg, Name: "/x"}},
		{{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}},
		{{Typeflag: tar.TypeReg, Name: strings.Repeat("long/", 200) + "f", PAXRecords: map[string]string{"NESTBOX.x": "y"}}},
	} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, h := range headers {
			must(f, w.WriteHeader(&h))
		}
		must(f, w.Close())
		f.Add(buf.Bytes())
	}
	f.Fuzz(func(t *testing.T, archive []byte) { _, _ = extract(t, dir, archive) })
}

// FuzzTarNames has one entry of any name and target. It is put where its name says, or refused.
func FuzzTarNames(f *testing.F) {
	dir := f.TempDir()
	f.Add("a/./b//c/", "d", byte(tar.TypeReg))
	f.Fuzz(func(t *testing.T, name, target string, kind byte) {
		if target == "" || kind != tar.TypeLink && kind != tar.TypeSymlink {
			target = ""
		}
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		if w.WriteHeader(&tar.Header{Typeflag: kind, Name: name, Linkname: target, Format: tar.FormatPAX}) != nil {
			return
		}
		must(t, w.Close())
		r, err := extract(t, dir, buf.Bytes())
		outside := strings.HasPrefix(name, "/") || strings.Contains("/"+name+"/", "/../")
		if outside && kind != tar.TypeXGlobalHeader && (len(r.names) > 0 || err == nil) { // which has no name
			t.Errorf("%q is put at %q, %v", name, r.names, err)
		}
		if len(r.names) > 0 && r.names[0] != filepath.Clean(name) {
			t.Errorf("%q is put at %q", name, r.names)
		}
	})
}
