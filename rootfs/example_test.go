package rootfs_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/nestbox/nestbox/rootfs"
)

func ExampleCatalog() {
	dir, err := os.MkdirTemp("", "templates-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	// A template is a directory with a root file system in it, and what it says of its sandboxes beside it.
	template := filepath.Join(dir, "python")
	if err := os.MkdirAll(filepath.Join(template, "rootfs", "etc"), 0o755); err != nil {
		log.Fatal(err)
	}
	config := `{"user": "1000:1000", "env": ["PYTHONUNBUFFERED=1"], "dir": "/work"}`
	if err := os.WriteFile(filepath.Join(template, "config.json"), []byte(config), 0o644); err != nil {
		log.Fatal(err)
	}

	catalog := rootfs.NewCatalog(dir, filepath.Join(dir, ".base"))
	names, err := catalog.Names()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(names)

	t, err := catalog.Lookup("python")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(t.Config.User, t.Config.Env, t.Config.Dir)

	_, err = catalog.Lookup("perl")
	fmt.Println(errors.Is(err, rootfs.ErrTemplateNotFound))
	// Output:
	// [base python]
	// 1000:1000 [PYTHONUNBUFFERED=1] /work
	// true
}
