package lease

import "time"

// EventKind says what happened to a sandbox.
type EventKind string

// The kinds of events.
const (
	EventCreated     EventKind = "created"
	EventReconnected EventKind = "reconnected" // another handle was opened
	EventPaused      EventKind = "paused"
	EventResumed     EventKind = "resumed"
	EventExtended    EventKind = "extended" // the deadline was set, also to a sooner one or to none
	EventEnded       EventKind = "ended"
)

// Event is something that happened to a sandbox, in whichever process.
type Event struct {
	Kind      EventKind `json:"kind"`
	ID        string    `json:"id"`
	At        time.Time `json:"at"`
	ExpiresAt time.Time `json:"expires,omitzero"` // of created, extended and resumed: the deadline; zero: none
	EndReason EndReason `json:"reason,omitempty"` // of ended
}
