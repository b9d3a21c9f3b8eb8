// Package tap lets package enginetest hear what the commands of a sandbox print. It is not part of engine's API.
package tap

import "context"

// Func is told what a command prints, as far as the host copies it. It is called from several goroutines.
type Func func(command string, b []byte)

type key struct{}

// With has sandboxes that are created with the context tell f.
func With(ctx context.Context, f Func) context.Context { return context.WithValue(ctx, key{}, f) }

// From is the context's Func; nil if it has none.
func From(ctx context.Context) Func {
	f, _ := ctx.Value(key{}).(Func)
	return f
}
