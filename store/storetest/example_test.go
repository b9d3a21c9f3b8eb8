package storetest_test

import (
	"testing"

	"github.com/nestbox/nestbox/store"
	"github.com/nestbox/nestbox/store/storetest"
)

// A store of your own goes through the tests that all stores do.
func ExampleRun() {
	testStore := func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) store.Store { return &store.Memory{} })
	}
	_ = testStore
}
