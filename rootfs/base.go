package rootfs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// An entry is a file, directory or link of the skeleton.
type entry struct {
	name string // relative to the root
	mode fs.FileMode
	id   int    // owner and group
	data string // a file's content or a link's target
	copy string // the file of the host's to copy the content from; data tells its version then
}

// skeleton is what base has of its own, on every host.
func skeleton() []entry {
	dir := func(name string, perm fs.FileMode) entry { return entry{name: name, mode: fs.ModeDir | perm} }
	file := func(name, data string) entry { return entry{name: name, mode: 0o644, data: data} }
	list := []entry{dir("home/user", 0o755)}
	list[0].id = 1000
	for _, name := range []string{"etc", "home", "media", "mnt", "opt", "run", "srv", "usr", "var", "var/cache", "var/lib", "var/log", "proc", "sys", "dev"} {
		list = append(list, dir(name, 0o755))
	}
	list = append(list,
		dir("root", 0o700),
		dir("tmp", 0o777|fs.ModeSticky),
		dir("var/tmp", 0o777|fs.ModeSticky),
		entry{name: "var/run", mode: fs.ModeSymlink, data: "../run"},
		file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"),
		file("etc/group", "root:x:0:\ntty:x:5:\nuser:x:1000:\nnogroup:x:65534:\n"),
		file("etc/hosts", "127.0.0.1\tlocalhost sandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
		file("etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n"),
		file("etc/resolv.conf", ""),
		file("etc/hostname", "sandbox\n"),
	)
	return list
}

// The directories of programs and libraries at the root, on a merged host links into /usr.
var rootDirs = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// The files of /etc that programs need and that tell nothing of the host.
var etcFiles = []string{
	"alternatives",
	"ca-certificates",
	"ca-certificates.conf",
	"crypto-policies",
	"ld.so.cache",
	"ld.so.conf",
	"ld.so.conf.d",
	"mime.types",
	"pki/ca-trust/extracted",
	"pki/tls/certs",
	"protocols",
	"services",
	"ssl/certs",
	"ssl/openssl.cnf",
}

// planBase is base for the host whose root is root: the skeleton, and what is mounted on it.
func planBase(root string) (list []entry, mounts []Mount) {
	list = skeleton()
	mounts = []Mount{{Source: filepath.Join(root, "usr"), Target: "/usr", layer: true}}
	names := append(slices.Clone(rootDirs), "etc/localtime")
	for _, name := range etcFiles {
		names = append(names, "etc/"+name)
	}
	for _, name := range names {
		e, source := place(root, name)
		if e.name == "" {
			continue
		}
		for i, r := range name {
			above := entry{name: name[:i], mode: fs.ModeDir | 0o755}
			if r == '/' && !slices.Contains(list, above) {
				list = append(list, above)
			}
		}
		list = append(list, e)
		if source != "" {
			mounts = append(mounts, Mount{Source: source, Target: "/" + name, layer: true})
		}
	}
	return list, mounts
}

// place is what stands for name of the host's in base: a link into /usr, a copy of a file, or a directory that
// source is mounted on. It is nothing if the host has no such directory or file, or a link to none.
func place(root, name string) (e entry, source string) {
	source = filepath.Join(root, name)
	if target, err := os.Readlink(source); err == nil && intoUsr(name, target) {
		return entry{name: name, mode: fs.ModeSymlink, data: target}, ""
	}
	source, err := filepath.EvalSymlinks(source)
	if err != nil {
		return entry{}, ""
	}
	fi, err := os.Stat(source)
	switch {
	case err != nil:
		return entry{}, ""
	case fi.IsDir():
		return entry{name: name, mode: fs.ModeDir | 0o755}, source
	case fi.Mode().IsRegular():
		version := fmt.Sprintf("%d bytes of %d", fi.Size(), fi.ModTime().UnixNano())
		return entry{name: name, mode: 0o644, data: version, copy: source}, ""
	default:
		return entry{}, ""
	}
}

// intoUsr tells whether a link at name to target stays within /usr, where it is the same inside.
func intoUsr(name, target string) bool {
	if !filepath.IsAbs(target) {
		target = filepath.Join("/", filepath.Dir(name), target)
	}
	target = filepath.Clean(target)
	return target == "/usr" || strings.HasPrefix(target, "/usr/")
}

// lookupBase gives the built-in template. Its skeleton is made once, in a directory that is named by what
// is in it, so that several processes, and versions, can share the place.
func (c *Catalog) lookupBase(config Config) (Template, error) {
	list, mounts := planBase("/")
	dir := filepath.Join(c.base, digest(list))
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		err = makeSkeleton(dir, list)
		if err != nil {
			return Template{}, fmt.Errorf("make template %q: %w", Base, err)
		}
	}
	t := Template{Name: Base, Root: dir, Config: config, Mounts: mounts}
	return t, t.check()
}

func digest(list []entry) string {
	h := sha256.New()
	for _, e := range list {
		fmt.Fprintf(h, "%q %v %d %q %q\n", e.name, e.mode, e.id, e.data, e.copy)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

// makeSkeleton makes list in the directory dir, all or nothing.
func makeSkeleton(dir string, list []entry) (err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	for _, e := range list {
		if err := e.make(tmp); err != nil {
			return err
		}
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	err = os.Rename(tmp, dir)
	if errors.Is(err, fs.ErrExist) { // another was faster
		return nil
	}
	return err
}

func (e entry) make(root string) error {
	path := filepath.Join(root, e.name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if e.mode&fs.ModeSymlink != 0 {
		return os.Symlink(e.data, path)
	}
	if err := e.write(path); err != nil {
		return err
	}
	if err := os.Lchown(path, e.id, e.id); err != nil {
		return err
	}
	return os.Chmod(path, e.mode) // whatever the umask is
}

// write makes a directory or a file with its content.
func (e entry) write(path string) error {
	switch {
	case e.mode.IsDir():
		return os.MkdirAll(path, 0o755)
	case e.copy == "":
		return writeSynced(path, e.data)
	}
	data, err := os.ReadFile(e.copy)
	if err != nil {
		return err
	}
	return writeSynced(path, string(data))
}

// writeSynced writes a file whose content is on disk before the skeleton's name is.
func writeSynced(path, data string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if data != "" {
		_, err = f.WriteString(data)
		err = errors.Join(err, f.Sync())
	}
	return errors.Join(err, f.Close())
}

// ResolverMounts are what base needs of the host's to look up names in the host's network.
func ResolverMounts() []Mount {
	var list []Mount
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		source, err := filepath.EvalSymlinks(name)
		if err != nil {
			continue // the host has none either
		}
		list = append(list, Mount{Source: source, Target: name})
	}
	return list
}
