// Command quickstart creates a sandbox, writes a file into it, has a program work on the file, and reads what
// came of it.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/nestbox/nestbox/engine"
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	eng, err := engine.Open(ctx, engine.Options{Dir: os.Getenv("NESTBOX_DIR")}) // empty: /var/lib/nestbox
	if err != nil {
		return err
	}
	defer eng.Close()
	sb, err := eng.Create(ctx, engine.CreateOptions{})
	if err != nil {
		return err
	}
	defer sb.Close() // the last handle: the sandbox ends

	if err := sb.FS().WriteFile("fruit.txt", []byte("pear\napple\nfig\n"), 0o644); err != nil {
		return err
	}
	if err := sb.Command("sort", "-o", "sorted.txt", "fruit.txt").Run(); err != nil {
		return err
	}
	data, err := sb.FS().ReadFile("sorted.txt")
	if err != nil {
		return err
	}
	fmt.Printf("%s", data)
	return nil
}
