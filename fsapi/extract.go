package fsapi

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// ErrInsecurePath means that an archive's entry would lie outside of the directory it is extracted to.
var ErrInsecurePath = tar.ErrInsecurePath

// Keep is what ExtractTar takes from an archive only if it is asked to.
type Keep uint8

const (
	// KeepSetID keeps setuid and setgid bits.
	KeepSetID Keep = iota + 1
	// KeepOwners makes the archive's numeric owners those of the files, as the sandbox's ids. It takes a sandbox
	// whose user is root.
	KeepOwners
)

// The kinds of a Place: the types of an Entry, and one for a hard link.
const (
	placeLink    = 0
	placePipe    = 1
	placeDir     = 4
	placeFile    = 8
	placeSymlink = 10
)

// Place is something to be put below a directory.
type Place struct {
	Name   string // relative
	Kind   uint8  // Type of an Entry, or 0 for a hard link
	Target string // of a symbolic link, or below the directory of a hard one
	Attr   Attr   // of a symbolic link or named pipe
}

// ExtractTar reads a tar archive and puts what it holds below the directory dir, which it makes if it isn't there.
// The archive isn't trusted, nor is what happens in the sandbox at the same time: nothing is put outside of dir,
// whatever links lie on the way. An entry with an absolute name or "..", or one that a link would lead out, is
// ErrInsecurePath. A symbolic link may lead anywhere, but nothing is put through it out of dir; a hard link is
// to what is below dir. Devices are errors.ErrUnsupported. Extended attributes are left out.
//
// Files belong to the sandbox's user, and have the permission and time of modification of the archive, without
// setuid and setgid; see Keep for more. What is there is replaced, but directories stay. After an error what was
// extracted before stays, too.
func (f *FS) ExtractTar(dir string, r io.Reader, keep ...Keep) error {
	if err := f.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	root, err := f.OpenFile(dir, os.O_RDONLY|openDirectory, 0)
	if err != nil {
		return err
	}
	defer root.Close()
	x := &extraction{
		agent:  f.agent,
		root:   root.f,
		setID:  slices.Contains(keep, KeepSetID),
		owners: slices.Contains(keep, KeepOwners),
	}
	archive := tar.NewReader(r)
	for {
		hdr, err := archive.Next()
		if err == io.EOF {
			err = x.leave("")
			return pathError("extract", dir, err)
		}
		name := dir
		if err == nil {
			name = hdr.Name
			err = x.entry(hdr, archive)
		}
		if err != nil {
			return pathError("extract", name, unwrapPath(err))
		}
	}
}

// extraction is an ExtractTar under way.
type extraction struct {
	agent         Agent
	root          *os.File
	setID, owners bool

	// open are directories, each in the one before, that get their attributes once no more is put into them.
	open []openDir
}

type openDir struct {
	name string
	attr Attr
}

// entry puts one entry in its place.
func (x *extraction) entry(hdr *tar.Header, content io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := localName(hdr.Name)
	if err != nil {
		return err
	}
	p := Place{Name: name, Target: hdr.Linkname, Attr: x.attr(hdr)}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		p.Kind = placeFile
	case tar.TypeDir:
		p.Kind = placeDir
	case tar.TypeSymlink:
		p.Kind = placeSymlink
	case tar.TypeFifo:
		p.Kind = placePipe
	case tar.TypeLink:
		p.Kind = placeLink
		if p.Target, err = localName(hdr.Linkname); err != nil {
			return err
		}
	case tar.TypeChar, tar.TypeBlock:
		return fmt.Errorf("device: %w", errors.ErrUnsupported)
	default:
		return fmt.Errorf("entry of type %q: %w", hdr.Typeflag, errors.ErrUnsupported)
	}
	if name == "" { // dir itself, which stays as it is
		if p.Kind != placeDir {
			return ErrInsecurePath
		}
		return nil
	}
	if err := x.leave(name); err != nil {
		return err
	}
	return x.place(p, content)
}

func (x *extraction) place(p Place, content io.Reader) error {
	file, err := x.agent.Place(x.root, p)
	if err != nil || file == nil {
		return err
	}
	defer file.Close()
	if p.Kind == placeDir {
		x.open = append(x.open, openDir{p.Name, p.Attr})
		return nil
	}
	if _, err := io.Copy(file, content); err != nil {
		return err
	}
	return x.agent.SetAttr(file, p.Attr)
}

// leave gives directories their attributes in which name is not.
func (x *extraction) leave(name string) error {
	for len(x.open) > 0 {
		last := x.open[len(x.open)-1]
		if strings.HasPrefix(name, last.name+"/") {
			return nil
		}
		x.open = x.open[:len(x.open)-1]
		dir, err := x.agent.Place(x.root, Place{Name: last.name, Kind: placeDir, Attr: leave})
		if err != nil {
			return err
		}
		err = x.agent.SetAttr(dir, last.attr)
		_ = dir.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// attr is what is to be kept of an entry.
func (x *extraction) attr(hdr *tar.Header) Attr {
	attr := leave
	attr.Mode = hdr.Mode & (0o777 | sticky)
	if x.setID {
		attr.Mode = hdr.Mode & 0o7777
	}
	if x.owners {
		attr.UID, attr.GID = int64(hdr.Uid), int64(hdr.Gid)
	}
	attr.Mtime = nanos(hdr.ModTime)
	return attr
}

// localName is the name of an entry without what has no meaning. It is empty for the directory itself.
func localName(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return "", ErrInsecurePath
	}
	if len(name) >= pathMax {
		return "", syscall.ENAMETOOLONG
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", fs.ErrInvalid
	}
	var elems []string
	for elem := range strings.SplitSeq(name, "/") {
		switch elem {
		case "", ".":
		case "..":
			return "", ErrInsecurePath
		default:
			elems = append(elems, elem)
		}
	}
	return strings.Join(elems, "/"), nil
}
