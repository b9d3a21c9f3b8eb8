package fsapi

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

const (
	// maxDepth is how deep a tree may be that is archived. Each level is an open file.
	maxDepth = 512
	// maxLinkNames is how many bytes of names are kept to tell which files are one. Beyond that each is
	// archived by itself.
	maxLinkNames = 8 << 20
)

// WriteTar writes a tar archive of all that is below the directory dir, with names relative to it, in the order in
// which directories list it. Links are archived as links, and files with several names once; sockets and devices
// are left out, and so are extended attributes. Owners are the sandbox's ids. A tree with more than 512 levels
// is syscall.ENAMETOOLONG.
//
// What is created or removed at the same time is in the archive or not; a file that becomes shorter while it is
// read is io.ErrUnexpectedEOF. A guest can make a file that reads as zeros of any size at no cost: bound w.
func (f *FS) WriteTar(dir string, w io.Writer) error {
	root, err := f.OpenFile(dir, os.O_RDONLY|openDirectory, 0)
	if err != nil {
		return err
	}
	a := &archive{fs: f, w: tar.NewWriter(w), links: map[[2]uint64]string{}}
	err = a.dir(root, "", 0)
	if err == nil {
		err = pathError("archive", dir, a.w.Close())
	}
	return err
}

// archive is a WriteTar under way.
type archive struct {
	fs    *FS
	w     *tar.Writer
	links map[[2]uint64]string // device and inode of files with several names → the first
	names int                  // bytes of names in links
}

// dir archives what is in a directory, which it closes.
func (a *archive) dir(dir *File, prefix string, depth int) error {
	defer dir.Close()
	if depth >= maxDepth {
		return pathError("archive", dir.name, syscall.ENAMETOOLONG)
	}
	for {
		entries, err := dir.ReadDir(512)
		for _, e := range entries {
			name := join(dir.name, e.Name())
			err := a.entry(name, prefix+e.Name(), depth)
			if isNotExist(err) { // gone again
				continue
			}
			if err != nil {
				return archiveError(name, err)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// archiveError names the file that an error is of, once.
func archiveError(name string, err error) error {
	if e, ok := err.(*fs.PathError); ok && e.Op == "archive" {
		return err
	}
	return pathError("archive", name, unwrapPath(err))
}

// entry archives one file or directory.
func (a *archive) entry(name, as string, depth int) error {
	fi, err := a.fs.Lstat(name)
	if err != nil {
		return changed(err)
	}
	switch hdr := header(fi, as); fi.Mode().Type() {
	case 0:
		return a.file(name, as)
	case fs.ModeDir:
		return a.subdir(name, as, depth)
	case fs.ModeSymlink:
		hdr.Typeflag = tar.TypeSymlink
		if hdr.Linkname, err = a.fs.Readlink(name); err != nil {
			return changed(err)
		}
		return a.w.WriteHeader(hdr)
	case fs.ModeNamedPipe:
		hdr.Typeflag = tar.TypeFifo
		return a.w.WriteHeader(hdr)
	default:
		return nil
	}
}

func (a *archive) subdir(name, as string, depth int) error {
	dir, err := a.fs.OpenFile(name, os.O_RDONLY|openDirectory|openNoFollow, 0)
	if err != nil {
		return changed(err)
	}
	fi, err := dir.Stat()
	if err == nil {
		hdr := header(fi, as+"/")
		hdr.Typeflag = tar.TypeDir
		err = a.w.WriteHeader(hdr)
	}
	if err != nil {
		_ = dir.Close()
		return err
	}
	return a.dir(dir, as+"/", depth+1)
}

func (a *archive) file(name, as string) error {
	file, err := a.fs.OpenFile(name, os.O_RDONLY|openNoFollow, 0)
	if err != nil {
		return changed(err)
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return err
	}
	hdr := header(fi, as)
	if !fi.Mode().IsRegular() {
		return nil // replaced by a directory
	}
	if fi.Size() < 0 {
		return fs.ErrInvalid
	}
	if first := a.first(fi, as); first != "" {
		hdr.Typeflag, hdr.Linkname = tar.TypeLink, first
		return a.w.WriteHeader(hdr)
	}
	hdr.Typeflag, hdr.Size = tar.TypeReg, fi.Size()
	if err := a.w.WriteHeader(hdr); err != nil {
		return err
	}
	_, err = io.CopyN(a.w, file, hdr.Size)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// changed is an error of what was something else when it was looked at, or is below what was a directory, as one that
// means it is gone.
func changed(err error) error {
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EINVAL) {
		return fs.ErrNotExist
	}
	return err
}

// first is the name by which a file is in the archive already, or empty.
func (a *archive) first(fi fs.FileInfo, as string) string {
	st := fi.Sys().(*Stat)
	if st.Nlink < 2 {
		return ""
	}
	id := [2]uint64{st.Dev, st.Ino}
	first := a.links[id]
	if first == "" && a.names+len(as) <= maxLinkNames {
		a.links[id] = as
		a.names += len(as) + 64 // and what a map takes
	}
	return first
}

// header is what all entries have.
func header(fi fs.FileInfo, name string) *tar.Header {
	st := fi.Sys().(*Stat)
	return &tar.Header{
		Name:    name,
		Mode:    int64(st.Mode & 0o7777),
		Uid:     int(st.UID),
		Gid:     int(st.GID),
		ModTime: time.Unix(0, st.Mtime).Truncate(time.Second), // of which package tar writes no parts
	}
}
