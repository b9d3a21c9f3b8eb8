package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/nestbox/nestbox/store"
	"github.com/nestbox/nestbox/store/sqlite"
)

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "store.db")
	ctx := context.Background()

	s, err := sqlite.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	err = s.Add(ctx, store.Record{ID: "1", State: "running", Metadata: map[string]string{"user": "42"}})
	if err := errors.Join(err, s.Close()); err != nil {
		log.Fatal(err)
	}

	s, err = sqlite.Open(path) // later, or in another process
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	r, err := s.Get(ctx, "1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.State, r.Metadata)
	_, err = s.Get(ctx, "2")
	fmt.Println(errors.Is(err, store.ErrNotFound))
	// Output:
	// running map[user:42]
	// true
}
