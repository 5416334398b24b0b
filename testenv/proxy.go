package testenv

import "github.com/gofer-mq/gofer/cmd/gofer/playground"

// Proxy is a forward proxy whose behaviour can be chosen.
type Proxy = playground.Proxy

// Mode is how a proxy behaves.
type Mode = playground.Mode

// The modes.
const (
	Good         = playground.Good
	Slow         = playground.Slow
	Refusing     = playground.Refusing
	Silent       = playground.Silent
	SilentAfter  = playground.SilentAfter
	Banned       = playground.Banned
	Unauthorized = playground.Unauthorized
	BadGateway   = playground.BadGateway
	Garbage      = playground.Garbage
	Cutting      = playground.Cutting
)
