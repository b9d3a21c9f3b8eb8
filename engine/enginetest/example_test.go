package enginetest_test

import (
	"testing"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/engine/enginetest"
)

// A test that needs a machine of its own, and a program on it.
func Example() {
	testGit := func(t *testing.T) {
		t.Parallel()
		enginetest.Require(t, enginetest.Program+"git")
		sb := enginetest.New(t, engine.CreateOptions{})
		if out, err := sb.Command("git", "init", "repo").CombinedOutput(); err != nil {
			t.Fatalf("git init: %v: %s", err, out)
		}
		if ok, err := sb.FS().Exists("repo/.git/HEAD"); !ok || err != nil {
			t.Errorf("there is no repository: %v", err)
		}
	}
	_ = testGit
}
