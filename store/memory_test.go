package store_test

import (
	"testing"

	"github.com/nestbox/nestbox/store"
	"github.com/nestbox/nestbox/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return new(store.Memory) })
}
