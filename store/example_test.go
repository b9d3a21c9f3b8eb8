package store_test

import (
	"context"
	"fmt"
	"log"

	"github.com/nestbox/nestbox/store"
)

func Example() {
	ctx := context.Background()
	var s store.Memory
	defer s.Close()
	for _, r := range []store.Record{
		{ID: "1", State: "running", Metadata: map[string]string{"user": "42"}},
		{ID: "2", State: "running", Metadata: map[string]string{"user": "43"}},
		{ID: "3", State: "running", Metadata: map[string]string{"user": "42"}},
	} {
		if err := s.Add(ctx, r); err != nil {
			log.Fatal(err)
		}
	}
	err := s.Update(ctx, "1", func(r *store.Record) error {
		r.State, r.EndReason = "ended", "closed"
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	records, err := s.List(ctx, store.Filter{Metadata: map[string]string{"user": "42"}})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range records {
		fmt.Println(r.ID, r.State)
	}
	// Output:
	// 3 running
	// 1 ended
}

// Pages of a long list are gone through with the last id of each.
func ExampleFilter() {
	ctx := context.Background()
	var s store.Memory
	defer s.Close()
	for _, id := range []string{"1", "2", "3", "4", "5"} {
		if err := s.Add(ctx, store.Record{ID: id}); err != nil {
			log.Fatal(err)
		}
	}
	for f := (store.Filter{Limit: 2}); ; {
		page, err := s.List(ctx, f)
		if err != nil {
			log.Fatal(err)
		}
		if len(page) == 0 {
			return
		}
		fmt.Printf("%d, from %s\n", len(page), page[0].ID)
		f.Before = page[len(page)-1].ID
	}
	// Output:
	// 2, from 5
	// 2, from 3
	// 1, from 1
}
