package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/nestbox/nestbox/engine/internal/agent/agentbin"
	"github.com/nestbox/nestbox/engine/internal/container"
)

// Support tells whether a host has a feature.
type Support string

// The answers.
const (
	Supported   Support = "yes"
	Unsupported Support = "no"
	Unknown     Support = "unknown" // the host doesn't tell; Create will
)

// Feature is something that this package needs of a host, or can use.
type Feature struct {
	Name     string // "root", "overlayfs", …
	Support  Support
	Required bool   // Open fails without it
	Reason   string // how that is known
	Remedy   string // what to do if it isn't supported
}

// Report is what Probe found.
type Report struct{ Features []Feature }

// Err is nil if all that is required is supported, or may be. Else it is errors.ErrUnsupported and names all that
// is missing, each with its remedy.
func (r Report) Err() error {
	var missing []string
	for _, f := range r.Features {
		if f.Required && f.Support == Unsupported {
			missing = append(missing, fmt.Sprintf("%s (%s): %s", f.Name, f.Reason, f.Remedy))
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("%w on this host: %s", errors.ErrUnsupported, strings.Join(missing, "; "))
}

// String is a line for each feature.
func (r Report) String() string {
	var b strings.Builder
	for _, f := range r.Features {
		fmt.Fprintf(&b, "%-16s %-8s %s", f.Name, f.Support, f.Reason)
		if f.Support != Supported {
			fmt.Fprintf(&b, ": %s", f.Remedy)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Probe tells what this host can do. It changes nothing, and takes less than a millisecond; Open begins with it.
func Probe(ctx context.Context) Report {
	r := Report{[]Feature{probeBuild(), probeRoot()}}
	if r.Features[0].Support == Supported {
		r.Features = append(r.Features, probeHost()...)
	}
	return r
}

// probeBuild looks at what the program was built for.
func probeBuild() Feature {
	f := Feature{Name: "program", Required: true, Support: Supported, Reason: runtime.GOOS + "/" + runtime.GOARCH + " with cgo"}
	switch {
	case container.Supported() != nil:
		f.Support, f.Reason = Unsupported, "built for "+runtime.GOOS+", or without cgo"
		f.Remedy = "build it for Linux, with CGO_ENABLED=1 and a C compiler"
	case len(agentbin.Binary) == 0:
		f.Support, f.Reason = Unsupported, "there is no agent for "+runtime.GOARCH
		f.Remedy = "use amd64 or arm64"
	}
	return f
}

func probeRoot() Feature {
	f := Feature{Name: "root", Required: true, Support: Supported, Reason: fmt.Sprintf("effective user %d", os.Geteuid())}
	if os.Geteuid() != 0 {
		f.Support, f.Remedy = Unsupported, "run the program as root, which sandboxes need for now"
	}
	return f
}
