//go:build !linux || !(amd64 || arm64)

package agentbin

// Binary is empty: there is no agent for this system.
var Binary []byte
