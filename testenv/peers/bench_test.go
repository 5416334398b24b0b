// Package peers_test measures gofer's breaker beside those of other libraries. It is a module of its own, so that nobody who
// imports gofer downloads them.
package peers_test

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/sony/gobreaker/v2"

	"github.com/gofer-mq/gofer/breaker"
)

// The rule of all of them: five failures within a minute rest a proxy for half a minute.
const (
	failures = 5
	window   = time.Minute
	rest     = 30 * time.Second
)

var errFailed = errors.New("failed")

// judge is a breaker of any library: may a call be made, and what has become of it?
type judge interface {
	allow() (settle func(ok bool), admitted bool)
	open() bool
}

// library makes breakers, and a call for the benchmarks that has no more around it than the library wants.
type library struct {
	name string
	make func() judge
	call func() (call func(ok bool))
}

func libraries() []library {
	plain := breaker.Config{FailureThreshold: failures, Window: window, OpenTimeout: rest, Jitter: -1, DistinctTargets: 1}
	group := breaker.NewGroup(plain)
	return []library{
		{"gofer", func() judge { return ours{breaker.New(plain)} }, func() func(bool) {
			b := group.New()
			return func(ok bool) {
				permit, _, admitted := b.Allow()
				if !admitted {
					return
				}
				if ok {
					permit.Success()
					return
				}
				permit.Failure(0, "connect")
			}
		}},
		{"gobreaker", func() judge { return sony{gobreaker.NewTwoStepCircuitBreaker[any](sonySettings())} }, func() func(bool) {
			b := gobreaker.NewCircuitBreaker[any](sonySettings())
			return func(ok bool) {
				_, _ = b.Execute(func() (any, error) {
					if ok {
						return nil, nil
					}
					return nil, errFailed
				})
			}
		}},
		{"gobreaker-two-step", nil, func() func(bool) {
			b := sony{gobreaker.NewTwoStepCircuitBreaker[any](sonySettings())}
			return func(ok bool) {
				if settle, admitted := b.allow(); admitted {
					settle(ok)
				}
			}
		}},
		{"failsafe-go", func() judge { return failsafe{failsafeBreaker()} }, func() func(bool) {
			b := failsafeBreaker()
			return func(ok bool) {
				switch {
				case !b.TryAcquirePermit():
				case ok:
					b.RecordSuccess()
				default:
					b.RecordFailure()
				}
			}
		}},
	}
}

type ours struct{ b *breaker.Breaker }

func (o ours) allow() (func(bool), bool) {
	permit, _, admitted := o.b.Allow()
	return func(ok bool) {
		if ok {
			permit.Success()
			return
		}
		permit.Failure(0, "connect")
	}, admitted
}

func (o ours) open() bool { return !o.b.Ready() }

type sony struct {
	b *gobreaker.TwoStepCircuitBreaker[any]
}

func sonySettings() gobreaker.Settings {
	return gobreaker.Settings{
		Interval: window, BucketPeriod: window / 10, Timeout: rest,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.TotalFailures >= failures },
	}
}

func (s sony) allow() (func(bool), bool) {
	done, err := s.b.Allow()
	return func(ok bool) {
		if ok {
			done(nil)
			return
		}
		done(errFailed)
	}, err == nil
}

func (s sony) open() bool { return s.b.State() == gobreaker.StateOpen }

type failsafe struct {
	b circuitbreaker.CircuitBreaker[any]
}

func failsafeBreaker() circuitbreaker.CircuitBreaker[any] {
	return circuitbreaker.NewBuilder[any]().WithFailureThresholdPeriod(failures, window).WithDelay(rest).WithSuccessThreshold(1).Build()
}

func (f failsafe) allow() (func(bool), bool) {
	admitted := f.b.TryAcquirePermit()
	return func(ok bool) {
		if ok {
			f.b.RecordSuccess()
			return
		}
		f.b.RecordFailure()
	}, admitted
}

// open goes by the time left: the state changes with the next permit only.
func (f failsafe) open() bool { return f.b.IsOpen() && f.b.RemainingDelay() > 0 }

// BenchmarkBreaker is a permit and its success, alone and by all processors on one breaker, and a refusal while it is open.
func BenchmarkBreaker(b *testing.B) {
	for _, lib := range libraries() {
		b.Run(lib.name+"/success", func(b *testing.B) {
			call := lib.call()
			b.ReportAllocs()
			for b.Loop() {
				call(true)
			}
		})
		b.Run(lib.name+"/success-parallel", func(b *testing.B) {
			call := lib.call()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					call(true)
				}
			})
		})
		b.Run(lib.name+"/refusal", func(b *testing.B) {
			call := lib.call()
			for range failures {
				call(false)
			}
			b.ReportAllocs()
			for b.Loop() {
				call(true)
			}
		})
		b.Run(lib.name+"/memory", func(b *testing.B) {
			const many = 10_000
			kept := make([]any, many)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for i := range kept {
				kept[i] = lib.call()
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			runtime.KeepAlive(kept)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/many, "B/breaker")
			b.ReportMetric(0, "ns/op")
		})
	}
}
