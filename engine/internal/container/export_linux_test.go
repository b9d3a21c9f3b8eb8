//go:build linux && cgo

package container

// LibcontainerConfig is cfg for libcontainer.
var LibcontainerConfig = Config.config
