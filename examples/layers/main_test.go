//go:build linux

package main

import (
	"strings"
	"testing"

	"github.com/nestbox/nestbox/engine"
	"github.com/nestbox/nestbox/engine/enginetest"
)

// TestLayers holds that a sandbox has every layer that can be seen here, and that the probe sees what is not there.
func TestLayers(t *testing.T) {
	enginetest.Require(t, enginetest.Sandboxes, enginetest.Program+"bwrap")
	eng, err := engine.Open(t.Context(), engine.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	b, err := newBench(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	columns := map[string]column{}
	for _, tt := range append(b.tools(eng), tool{name: "host", probe: b.host}) {
		if tt.name != "Nestbox" && tt.name != "bubblewrap" && tt.name != "host" {
			continue
		}
		c, err := b.see(t.Context(), tt)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		columns[tt.name] = c
	}
	for _, r := range columns["Nestbox"].rows {
		if !r.on {
			t.Errorf("a sandbox is without %s: %s", r.layer, r.note)
		}
	}
	// bubblewrap has no filter of its own and shares its caller's user id; a host has nothing.
	for name, layers := range map[string][]string{
		"bubblewrap": {"seccomp filter", "user ids of each sandbox's own", "no call: io_uring"},
		"host":       {"seccomp filter", "no_new_privs", "no call: keyctl", "no call: mount", "`/dev/shm` of its own"},
	} {
		for _, r := range columns[name].rows {
			for _, layer := range layers {
				if r.layer == layer && r.on {
					t.Errorf("%s has %s, which it hasn't: %s", name, layer, r.note)
				}
			}
		}
	}
	var out strings.Builder
	printTable(&out, columns["host"], []column{columns["Nestbox"], columns["bubblewrap"]})
	if !strings.Contains(out.String(), "| seccomp filter | ✓ | – |\n") {
		t.Errorf("the table:\n%s", &out)
	}
}
