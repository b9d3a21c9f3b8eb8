// Package agentbin holds the agent's binary for each architecture, as built from
// engine/internal/agent/cmd by go generate. A test builds it again and compares.
package agentbin

//go:generate env CGO_ENABLED=0 GOOS=linux GOARCH=amd64 GOAMD64=v1 GOFLAGS= go build -trimpath -buildvcs=false -ldflags "-s -w -buildid=" -o agent_linux_amd64 ../cmd
//go:generate env CGO_ENABLED=0 GOOS=linux GOARCH=arm64 GOARM64=v8.0 GOFLAGS= go build -trimpath -buildvcs=false -ldflags "-s -w -buildid=" -o agent_linux_arm64 ../cmd
