package agentbin

import _ "embed"

// Binary is the agent, a static ELF program.
//
//go:embed agent_linux_arm64
var Binary []byte
