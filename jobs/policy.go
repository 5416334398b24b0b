package jobs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs/text"
)

// The backoff strategies: how the wait grows from one retry to the next.
const (
	Exponential = "exponential" // base × multiplier^(n−1)
	Linear      = "linear"      // base × n
	Fixed       = "fixed"       // base
)

// The bounds of a policy's fields.
const (
	MinBaseDelay       = 100 * time.Millisecond
	MaxBaseDelay       = time.Minute
	MinMaxBackoffDelay = time.Second
	MaxMaxBackoffDelay = 5 * time.Minute
	MaxMaxAttempts     = 10
	MinMultiplier      = 1.1
	MaxMultiplier      = 10
)

// Policy says when a job is tried again and after what wait. Every field is set: a fleet's policy has no gaps, a
// job fills its own gaps from the fleet's (Override.ApplyTo). Start from DefaultPolicy.
type Policy struct {
	// MaxAttempts counts attempts, not retries: 1 to 10.
	MaxAttempts int `json:"max_attempts"`
	// BackoffStrategy is Exponential, Linear or Fixed.
	BackoffStrategy string `json:"backoff_strategy"`
	// BaseDelay is the first wait before jitter, 0.1 s to 60 s.
	BaseDelay Duration `json:"base_delay"`
	// Multiplier is the growth of an exponential backoff, 1.1 to 10.
	Multiplier float64 `json:"multiplier"`
	// MaxBackoffDelay caps every computed wait, 1 s to 300 s. A Retry-After may exceed it.
	MaxBackoffDelay Duration `json:"max_backoff_delay"`
	// Jitter draws each wait evenly from nothing to the computed one (full jitter).
	Jitter bool `json:"jitter"`
	// RetryStatusCodes are the answers that are tried again, 100 to 599; every other status is final.
	RetryStatusCodes []int `json:"retry_status_codes"`
	// Timeout bounds all attempts and waits together and cuts the running one; zero means no bound.
	Timeout Duration `json:"timeout"`
	// RetryNonIdempotent allows POST and PATCH to be sent again when the first request may have been received.
	RetryNonIdempotent bool `json:"retry_non_idempotent"`
	// Hedge is the time without a first byte after which one more attempt begins through another proxy, Auto or Off; zero is Off.
	Hedge AutoDuration `json:"hedge"`
	// BanStatusCodes are the answers that mean "this proxy is banned by this host" to jobs without a Ban, 100 to 999. Empty
	// means none. In a document nil is absent, and means what the fleet's owner chose elsewhere.
	BanStatusCodes []int `json:"ban_status_codes,omitzero"`
}

// DefaultPolicy is the policy of a fleet whose owner chose nothing.
func DefaultPolicy() Policy {
	return Policy{
		MaxAttempts: 3, BackoffStrategy: Exponential, BaseDelay: Duration(time.Second), Multiplier: 2,
		MaxBackoffDelay: Duration(30 * time.Second), Jitter: true, RetryStatusCodes: []int{408, 429, 502, 503, 504}, Hedge: Off, BanStatusCodes: []int{403},
	}
}

// Name is the policy's short name in statistics, such as "exponential/3".
func (p Policy) Name() string { return p.BackoffStrategy + "/" + strconv.Itoa(p.MaxAttempts) }

// IsRetryable reports whether an answer of this status is tried again.
func (p Policy) IsRetryable(status int) bool { return slices.Contains(p.RetryStatusCodes, status) }

// IsBan reports whether an answer of this status is a ban to a job without a Ban.
func (p Policy) IsBan(status int) bool { return slices.Contains(p.BanStatusCodes, status) }

// Reasons lists everything that is out of range; none means that the policy is valid.
func (p Policy) Reasons() []string {
	o := Override{
		MaxAttempts: &p.MaxAttempts, BackoffStrategy: &p.BackoffStrategy, BaseDelay: &p.BaseDelay, Multiplier: &p.Multiplier,
		MaxBackoffDelay: &p.MaxBackoffDelay, RetryStatusCodes: p.RetryStatusCodes, Hedge: &p.Hedge,
	}
	// Zero is the policy's word for no bound, which a job cannot ask for.
	if p.Timeout != 0 {
		o.Timeout = &p.Timeout
	}
	reasons := o.reasons()
	for _, code := range p.BanStatusCodes {
		if !validBanStatus(code) {
			reasons = append(reasons, fmt.Sprintf("ban_status_codes: %d is not between 100 and %d", code, MaxBanStatus))
		}
	}
	return reasons
}

// DecodePolicy reads a policy document, as text.Document does; a field that is absent is taken from base. The error is an
// *InvalidError that lists every reason.
func DecodePolicy(data []byte, base Policy) (Policy, error) {
	data, err := text.Document(data)
	if err != nil {
		return Policy{}, &InvalidError{Reasons: []string{err.Error()}}
	}
	var o Override
	var bans []int
	// The fleet's policy has one member more than a job's own.
	shape := decodeObject(data, func(name string) any {
		if name == "ban_status_codes" {
			return &bans
		}
		return o.field(name)
	})
	p := o.ApplyTo(base)
	if bans != nil {
		p.BanStatusCodes = bans
	}
	// Reasons of the shape come first; a field that could not be read is not judged by its value as well.
	if err := asError(merge(shape, p.Reasons())); err != nil {
		return Policy{}, err
	}
	return p, nil
}

// Override is a job's own wishes: each field that is nil falls back to the fleet's policy. Pointers tell "not
// given" from a zero that was written.
type Override struct {
	MaxAttempts        *int          `json:"max_attempts,omitempty"`
	BackoffStrategy    *string       `json:"backoff_strategy,omitempty"`
	BaseDelay          *Duration     `json:"base_delay,omitempty"`
	Multiplier         *float64      `json:"multiplier,omitempty"`
	MaxBackoffDelay    *Duration     `json:"max_backoff_delay,omitempty"`
	Jitter             *bool         `json:"jitter,omitempty"`
	RetryStatusCodes   []int         `json:"retry_status_codes,omitzero"`
	Timeout            *Duration     `json:"timeout,omitempty"`
	RetryNonIdempotent *bool         `json:"retry_non_idempotent,omitempty"`
	Hedge              *AutoDuration `json:"hedge,omitempty"`
}

// ApplyTo is base with the fields that o names replaced. A nil Override changes nothing.
func (o *Override) ApplyTo(base Policy) Policy {
	if o == nil {
		return base
	}
	set(&base.MaxAttempts, o.MaxAttempts)
	set(&base.BackoffStrategy, o.BackoffStrategy)
	set(&base.BaseDelay, o.BaseDelay)
	set(&base.Multiplier, o.Multiplier)
	set(&base.MaxBackoffDelay, o.MaxBackoffDelay)
	set(&base.Jitter, o.Jitter)
	set(&base.Timeout, o.Timeout)
	set(&base.RetryNonIdempotent, o.RetryNonIdempotent)
	set(&base.Hedge, o.Hedge)
	// nil means that the job does not name any; an empty list means that no status is retried.
	if o.RetryStatusCodes != nil {
		base.RetryStatusCodes = o.RetryStatusCodes
	}
	return base
}

// set copies a value if it is given.
func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// field is where a member of the object belongs; nil for an unknown one.
func (o *Override) field(name string) any {
	switch name {
	case "max_attempts":
		return &o.MaxAttempts
	case "backoff_strategy":
		return &o.BackoffStrategy
	case "base_delay":
		return &o.BaseDelay
	case "multiplier":
		return &o.Multiplier
	case "max_backoff_delay":
		return &o.MaxBackoffDelay
	case "jitter":
		return &o.Jitter
	case "retry_status_codes":
		return &o.RetryStatusCodes
	case "timeout":
		return &o.Timeout
	case "retry_non_idempotent":
		return &o.RetryNonIdempotent
	case "hedge":
		return &o.Hedge
	}
	return nil
}

// UnmarshalJSON refuses unknown fields and names every field that it cannot read.
func (o *Override) UnmarshalJSON(data []byte) error { return asError(decodeObject(data, o.field)) }

// reasons lists the fields that are out of range. Fields that are nil are not checked.
func (o *Override) reasons() (reasons []string) {
	check := func(ok bool, format string, args ...any) {
		if !ok {
			reasons = append(reasons, fmt.Sprintf(format, args...))
		}
	}
	if v := o.MaxAttempts; v != nil {
		check(*v >= 1 && *v <= MaxMaxAttempts, "max_attempts: %d is not between 1 and %d", *v, MaxMaxAttempts)
	}
	if v := o.BackoffStrategy; v != nil {
		check(slices.Contains([]string{Exponential, Linear, Fixed}, *v), "backoff_strategy: %q is none of exponential, linear, fixed", clip(*v, 40))
	}
	if v := o.BaseDelay; v != nil {
		check(within(*v, MinBaseDelay, MaxBaseDelay), "base_delay: %s is not between %s and %s", *v, MinBaseDelay, MaxBaseDelay)
	}
	if v := o.Multiplier; v != nil {
		check(*v >= MinMultiplier && *v <= MaxMultiplier, "multiplier: %v is not between %v and %v", *v, MinMultiplier, MaxMultiplier)
	}
	if v := o.MaxBackoffDelay; v != nil {
		check(within(*v, MinMaxBackoffDelay, MaxMaxBackoffDelay), "max_backoff_delay: %s is not between %s and %s", *v, MinMaxBackoffDelay, MaxMaxBackoffDelay)
	}
	// A nil list has no element, so nothing is checked.
	for _, code := range o.RetryStatusCodes {
		check(validStatus(code), "retry_status_codes: %d is not between 100 and 599", code)
	}
	if v := o.Timeout; v != nil {
		check(*v > 0, "timeout: %s is not above zero", *v)
	}
	if v := o.Hedge; v != nil {
		check(*v >= Off, "hedge: %d ns is below zero", int64(*v))
	}
	return reasons
}

// within reports whether a duration lies between two bounds, both included.
func within(d Duration, low, high time.Duration) bool { return d.Std() >= low && d.Std() <= high }

// validStatus reports whether a status can be one that is tried again.
func validStatus(code int) bool { return code >= 100 && code <= 599 }

// InvalidError lists everything that is wrong with a job or a policy, so that its owner mends it in one go.
type InvalidError struct{ Reasons []string }

// Error joins the reasons in one line.
func (e *InvalidError) Error() string { return strings.Join(e.Reasons, "; ") }

// maxReasons bounds what is said about one job: each reason quotes a little of it, and all of them together have to fit
// into a result. Without it, a crafted payload of thousands of wrong members would make a result larger than a
// message.
const maxReasons = 50

// asError makes an *InvalidError of reasons; nil if there are none.
func asError(reasons []string) error {
	if len(reasons) == 0 {
		return nil
	}
	// Clip, so that the caller's slice is not written into.
	if more := len(reasons) - maxReasons; more > 0 {
		reasons = append(slices.Clip(reasons[:maxReasons]), fmt.Sprintf("and %d more", more))
	}
	return &InvalidError{Reasons: reasons}
}
