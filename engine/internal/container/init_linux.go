//go:build linux && cgo

package container

import (
	"os"
	"runtime"
	"runtime/debug"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // enters the namespaces before Go runs
)

func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" && os.Getenv("_LIBCONTAINER_INITPIPE") != "" {
		debug.SetGCPercent(-1) // it is over sooner than that pays
		runtime.GOMAXPROCS(1)
		runtime.LockOSThread()
		libcontainer.Init() // doesn't return
	}
}
