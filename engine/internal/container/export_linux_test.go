//go:build linux && cgo

package container

// LibcontainerConfig is cfg in libcontainer's terms.
var LibcontainerConfig = Config.config

// WithIdle has a process of which there is nothing but a user namespace.
var WithIdle = withIdle
