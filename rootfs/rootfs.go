// Package rootfs gives sandboxes their root file system: templates by name, and for each sandbox a tree,
// which is an overlay of a writable layer of its own on a template that is used in place.
//
// A template is a directory that holds a root file system. Nothing in it is ever written.
package rootfs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Base is the name of the built-in template: the host's programs on a skeleton of its own.
const Base = "base"

// ErrTemplateNotFound means that there is no template of that name.
var ErrTemplateNotFound = errors.New("template not found")

// TemplateError tells why a template can't be used.
type TemplateError struct {
	Name   string // as it was asked for
	Path   string // the file at fault
	Reason string // what is wrong, and what to do
}

func (e *TemplateError) Error() string {
	return fmt.Sprintf("template %q: %s: %s", e.Name, e.Path, e.Reason)
}

// Config is what a template says of its sandboxes, in config.json beside its rootfs directory. The zero
// Config is that of a template without one.
type Config struct {
	User string   `json:"user,omitempty"` // "name", "uid" or "uid:gid"; empty: root
	Env  []string `json:"env,omitempty"`  // "KEY=value", for every command
	Dir  string   `json:"dir,omitempty"`  // working directory, absolute; empty: the user's home
}

// Template is a template that was found and checked.
type Template struct {
	Name   string
	Root   string // the host's directory
	Config Config
	Mounts []Mount // what belongs into every sandbox of it
}

// Mount puts a directory or file of the host's into a sandbox. Inside, its owners are what they are on
// the host, where the file system allows that, else nobody.
type Mount struct {
	Source string // the host's path, absolute
	Target string // where in the sandbox, absolute; made if it isn't there
	// Writable lets the sandbox change the source. What its root makes there belongs to the host's root,
	// setuid files too: give it directories that nothing else executes from.
	Writable bool

	layer bool // the source is the layer of an overlay, as Template.Mounts of base need it
}

// Catalog finds templates. It is safe for concurrent use, and of several processes on one directory.
type Catalog struct {
	dir, base string
}

// NewCatalog is the catalog of the templates dir/<name>/rootfs. The built-in template's skeleton is kept
// in the directory base, which is made when it is first needed.
func NewCatalog(dir, base string) *Catalog { return &Catalog{dir, base} }

// Names lists the templates, sorted. Base is always among them.
func (c *Catalog) Names() ([]string, error) {
	names := []string{}
	entries, err := os.ReadDir(c.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	before := true // base
	for _, e := range entries {
		name := e.Name()
		if fi, err := os.Stat(filepath.Join(c.dir, name, "rootfs")); err != nil || !fi.IsDir() || !validName(name) {
			continue
		}
		if before && name >= Base {
			before = false
			if name != Base {
				names = append(names, Base)
			}
		}
		names = append(names, name)
	}
	if before {
		names = append(names, Base)
	}
	return names, nil
}

// Lookup finds a template by its name in the catalog, or by the absolute path of its root file system, and
// checks it. Its error is ErrTemplateNotFound or a *TemplateError, or why the skeleton of Base can't be made.
func (c *Catalog) Lookup(name string) (Template, error) {
	t := Template{Name: name}
	switch {
	case filepath.IsAbs(name):
		t.Root = filepath.Clean(name)
	case !validName(name):
		return Template{}, fmt.Errorf("%w: %.64q is no template's name; it has letters, digits, '.', '_' and '-'", ErrTemplateNotFound, name)
	default:
		t.Root = filepath.Join(c.dir, name, "rootfs")
		config, err := readConfig(name, filepath.Join(c.dir, name, "config.json"))
		if err != nil {
			return Template{}, err
		}
		t.Config = config
	}
	_, err := os.Stat(t.Root)
	if errors.Is(err, fs.ErrNotExist) && name == Base {
		return c.lookupBase(t.Config)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return Template{}, fmt.Errorf("%w: %q: there is no %s", ErrTemplateNotFound, name, t.Root)
	}
	if err != nil {
		return Template{}, &TemplateError{name, t.Root, reason(err)}
	}
	return t, t.check()
}

func validName(name string) bool {
	if name == "" || len(name) > 128 || name[0] == '.' {
		return false
	}
	for _, r := range name {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", r) {
			return false
		}
	}
	return true
}

func readConfig(name, path string) (Config, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, nil
	}
	if err != nil {
		return Config{}, &TemplateError{name, path, reason(err)}
	}
	config, fault := parseConfig(data)
	if fault != "" {
		return Config{}, &TemplateError{name, path, fault}
	}
	return config, nil
}

// parseConfig reads a Config, and tells what is wrong with it; empty: nothing.
func parseConfig(data []byte) (config Config, fault string) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&config); err != nil {
		return Config{}, err.Error()
	}
	if _, err := dec.Token(); err != io.EOF {
		return Config{}, "there is something after the object"
	}
	if field, reason := config.Fault(); field != "" {
		return Config{}, strings.ToLower(field) + ": " + reason
	}
	return config, ""
}

// pathMax is the length from which on the kernel takes no path, and nameMax that of the longest element.
const (
	pathMax = 4096
	nameMax = 255
)

// The bounds of a Config.
const (
	maxUser = 256
	maxEnv  = 1 << 20
)

// Fault tells which field of c can't be used, and what is wrong with it, short of what only the sandbox can tell.
// The field is empty if nothing is.
func (c Config) Fault() (field, reason string) {
	if len(c.User) > maxUser || strings.ContainsAny(c.User, "\x00\n") {
		return "User", fmt.Sprintf(`%.64q; a user is "name", "uid" or "uid:gid"`, c.User)
	}
	size := 0
	for _, kv := range c.Env {
		if strings.IndexByte(kv, '=') < 1 || strings.IndexByte(kv, 0) >= 0 {
			return "Env", fmt.Sprintf("%.64q is not KEY=value", kv)
		}
		size += len(kv) + 1
	}
	if size > maxEnv {
		return "Env", fmt.Sprintf("%d bytes in all; at most %d", size, maxEnv)
	}
	if c.Dir != "" && (!path.IsAbs(c.Dir) || len(c.Dir) >= pathMax || strings.IndexByte(c.Dir, 0) >= 0) {
		return "Dir", fmt.Sprintf("%.64q is no absolute path of less than %d bytes", c.Dir, pathMax)
	}
	return "", ""
}

// check refuses a template whose mount points could lead a mount astray.
func (t Template) check() error {
	fi, err := os.Stat(t.Root)
	if err != nil {
		return &TemplateError{t.Name, t.Root, reason(err)}
	}
	if !fi.IsDir() {
		return &TemplateError{t.Name, t.Root, "is no directory; a template is a directory that holds a root file system"}
	}
	for _, name := range []string{"proc", "sys", "dev"} {
		path := filepath.Join(t.Root, name)
		fi, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return &TemplateError{t.Name, path, reason(err)}
		case !fi.IsDir():
			return &TemplateError{t.Name, path, "is " + kind(fi.Mode()) + ", and must be a directory or absent"}
		}
	}
	return nil
}

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m.IsRegular():
		return "a file"
	default:
		return "a special file"
	}
}

// reason is err without operation and path, which stand beside it.
func reason(err error) string {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		return perr.Err.Error()
	}
	return err.Error()
}
