//go:build linux && cgo

package container

// LibcontainerConfig is cfg for libcontainer.
var LibcontainerConfig = Config.config

// WithIdle has a process of which there is nothing but a user namespace.
var WithIdle = withIdle
