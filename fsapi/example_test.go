package fsapi_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"

	"github.com/nestbox/nestbox/fsapi"
)

// sandbox stands for a sandbox of package engine, whose method FS gives the FS of its files.
type sandbox struct{ agent *dirAgent }

func (s sandbox) FS() *fsapi.FS { return fsapi.New(s.agent) }

func newSandbox() (sandbox, func()) {
	dir, err := os.MkdirTemp("", "sandbox-")
	if err != nil {
		log.Fatal(err)
	}
	return sandbox{&dirAgent{dir: dir}}, func() { _ = os.RemoveAll(dir) }
}

func ExampleFS() {
	sb, end := newSandbox()
	defer end()

	fsys := sb.FS()
	if err := fsys.MkdirAll("src/app", 0o755); err != nil {
		log.Fatal(err)
	}
	if err := fsys.WriteFile("src/app/main.go", []byte("package main\n"), 0o644); err != nil {
		log.Fatal(err)
	}
	if err := fsys.Symlink("app/main.go", "src/main"); err != nil {
		log.Fatal(err)
	}

	list, err := fsys.ReadDir("src")
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range list {
		fmt.Println(d)
	}
	data, err := fsys.ReadFile("src/main")
	fmt.Printf("%q, %v\n", data, err)

	_, err = fsys.ReadFile("src/test")
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	// Output:
	// d app/
	// L main
	// "package main\n", <nil>
	// true
}
