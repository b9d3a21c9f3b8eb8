package lease_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/nestbox/nestbox/lease"
	"github.com/nestbox/nestbox/store"
)

// A sandbox is kept alive past its last handle.
func ExampleLifetime() {
	const minute = time.Minute // any clock will do
	life := lease.NewLifetime(0, minute)
	life.Hold(0)
	life.Grace = 0
	life.KeepAlive(1*minute, 10*minute)
	life.Release(2 * minute)
	fmt.Println(life.End())
	fmt.Println("held again:", life.Hold(5*minute))
	life.KeepAlive(5*minute, 0)
	life.Release(6 * minute)
	fmt.Println("ended:", life.Ended(6*minute))
	// Output:
	// 11m0s true
	// held again: true
	// ended: true
}

func ExampleTable_List() {
	ctx := context.Background()
	table := lease.NewTable(new(store.Memory))
	for _, l := range []lease.Lease{
		{ID: "1", State: lease.Running, Metadata: map[string]string{"user": "42"}},
		{ID: "2", State: lease.Running, Metadata: map[string]string{"user": "43"}},
		{ID: "3", State: lease.Running, Metadata: map[string]string{"user": "42"}},
		{ID: "4", State: lease.Running, Metadata: map[string]string{"user": "42"}},
	} {
		if err := table.Add(ctx, l); err != nil {
			log.Fatal(err)
		}
	}
	if _, _, err := table.End(ctx, "3", time.Now(), lease.Closed); err != nil {
		log.Fatal(err)
	}
	q := lease.Query{Metadata: map[string]string{"user": "42"}, States: []lease.State{lease.Running}}
	for l, err := range table.List(ctx, q) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(l.ID, l.State)
	}
	// Output:
	// 4 running
	// 1 running
}
