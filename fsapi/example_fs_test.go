package fsapi_test

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"

	"github.com/nestbox/nestbox/fsapi"
)

// What is written for an fs.FS, such as a file server, works on a sandbox's files.
func ExampleFS_DirFS() {
	serve := func(files *fsapi.FS) http.Handler {
		return http.FileServerFS(files.DirFS("public"))
	}
	_ = serve
}

// A directory of the host's is copied in, and what became of it is taken out as an archive.
func ExampleFS_CopyFS() {
	build := func(files *fsapi.FS, src fs.FS) error {
		if err := files.CopyFS("src", src); err != nil {
			return err
		}
		// ... run the build in src ...
		out, err := os.Create("result.tar")
		if err != nil {
			return err
		}
		defer out.Close()
		return files.WriteTar("src/result", out)
	}
	_ = build
}

// Watch is ranged over. What happens after the call is told.
func ExampleFS_Watch() {
	watch := func(ctx context.Context, files *fsapi.FS) error {
		for e, err := range files.Watch(ctx, "src", true) {
			switch {
			case err != nil:
				return err
			case e.Op == fsapi.Overflow:
				fmt.Println("look at all of", e.Name)
			default:
				fmt.Println(e.Op, e.Name)
			}
		}
		return nil
	}
	_ = watch
}
