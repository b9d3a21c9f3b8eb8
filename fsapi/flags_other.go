//go:build !linux

package fsapi

// There are no sandboxes here.
const openDirectory, openNoFollow = 0, 0
