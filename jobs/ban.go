package jobs

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"regexp"
	"regexp/syntax"
	"slices"
	"unicode/utf8"

	"github.com/gofer-mq/gofer/jobs/text"
)

// The bounds of a job's ban.
const (
	MaxBanStatus    = 999 // some sites answer 999 to whom they have banned
	MaxPatternBytes = 512
	// MaxPatternSize is how many instructions a pattern may have once it is compiled. The time of a match grows with it.
	MaxPatternSize = 2000
	// MaxMatchedBytes is how much of a body a pattern examines.
	MaxMatchedBytes = 1 << 20
)

// Ban is what an answer looks like that a host gives to a proxy it has banned. One member that matches is enough. The zero value
// matches nothing, and a job that has it wants no answer to be taken for a ban.
type Ban struct {
	// Statuses are matched before a redirect is followed.
	Statuses []int `json:"statuses,omitzero"`
	// BodyRegexp matches a decoded body, NotBodyRegexp all other decoded bodies.
	BodyRegexp    string `json:"body_regexp,omitempty"`
	NotBodyRegexp string `json:"not_body_regexp,omitempty"`
	// MinBytes is the length below which a decoded body is a ban.
	MinBytes int64 `json:"min_bytes,omitempty"`
	// RedirectToRegexp matches the absolute URL that an answer redirects to. Such a redirect is not followed.
	RedirectToRegexp string `json:"redirect_to_regexp,omitempty"`

	// They are compiled by the checks of Decode, and nil in a Ban that was not decoded.
	body, notBody, redirect pattern
	key                     uint64
}

// UnmarshalJSON refuses unknown fields.
func (b *Ban) UnmarshalJSON(data []byte) error {
	return asError(decodeObject(data, b.field))
}

// field is where a member of the object belongs; nil for an unknown one.
func (b *Ban) field(name string) any {
	switch name {
	case "statuses":
		return &b.Statuses
	case "body_regexp":
		return &b.BodyRegexp
	case "not_body_regexp":
		return &b.NotBodyRegexp
	case "min_bytes":
		return &b.MinBytes
	case "redirect_to_regexp":
		return &b.RedirectToRegexp
	}
	return nil
}

// Key distinguishes the rules of decoded jobs: equal ones have the same key. It is zero only without a rule.
func (b *Ban) Key() uint64 {
	if b == nil {
		return 0
	}
	return b.key
}

// MatchStatus reports whether an answer of this status is a ban.
func (b *Ban) MatchStatus(status int) bool { return b != nil && slices.Contains(b.Statuses, status) }

// MatchBody reports whether the body of a decoded job's answer is a ban. Patterns examine the beginning of it. The error is
// ctx's.
func (b *Ban) MatchBody(ctx context.Context, body []byte) (bool, error) {
	if b == nil {
		return false, nil
	}
	// An empty body is shorter than any MinBytes above zero. A MinBytes of zero never matches.
	if int64(len(body)) < b.MinBytes {
		return true, nil
	}
	// The bound keeps the time of a match in hand; what decides whether a page is a ban mostly stands in its
	// beginning.
	start := body[:min(len(body), MaxMatchedBytes)]
	if found, err := b.body.match(ctx, start); found || err != nil {
		return found, err
	}
	if b.notBody.Regexp == nil {
		return false, nil
	}
	found, err := b.notBody.match(ctx, start)
	// An error of ctx is no match: the caller would take a stop for a ban.
	return !found && err == nil, err
}

// MatchRedirect reports whether a redirect to this absolute URL is a ban. The error is ctx's.
func (b *Ban) MatchRedirect(ctx context.Context, url string) (bool, error) {
	if b == nil {
		return false, nil
	}
	return b.redirect.match(ctx, []byte(url))
}

// ban checks a rule, and compiles its patterns so that no attempt has to.
func (c *checks) ban(b *Ban) {
	for _, code := range b.Statuses {
		c.ok(validBanStatus(code), "ban.statuses: %d is not between 100 and %d", code, MaxBanStatus)
	}
	for _, p := range []struct {
		name, expr string
		to         *pattern
	}{{"body_regexp", b.BodyRegexp, &b.body}, {"not_body_regexp", b.NotBodyRegexp, &b.notBody}, {"redirect_to_regexp", b.RedirectToRegexp, &b.redirect}} {
		var reason string
		if *p.to, reason = compile(p.expr); reason != "" {
			c.fail("ban.%s: %s", p.name, reason)
		}
	}
	c.ok(b.MinBytes >= 0, "ban.min_bytes: %d is below zero", b.MinBytes)
	b.key = b.hash()
}

// validBanStatus reports whether a rule may name a status.
func validBanStatus(code int) bool { return code >= 100 && code <= MaxBanStatus }

// hash is the same for rules that match the same answers by the same members.
func (b *Ban) hash() uint64 {
	// The order of the statuses, and repeated ones, do not make another rule.
	statuses := slices.Clone(b.Statuses)
	slices.Sort(statuses)
	sum := fnv.New64a()
	fmt.Fprintf(sum, "%v %q %q %d %q", slices.Compact(statuses), b.BodyRegexp, b.NotBodyRegexp, b.MinBytes, b.RedirectToRegexp)
	// Zero means that there is no rule.
	return max(1, sum.Sum64())
}

// pattern is a regular expression and about how many instructions it has. The zero value matches nothing.
type pattern struct {
	*regexp.Regexp
	size int
}

// compile compiles an expression, or says why it may not be used. Its size is known before: a few bytes can stand for millions
// of instructions.
func compile(expr string) (p pattern, reason string) {
	if expr == "" {
		return pattern{}, ""
	}
	// Checked before the parser sees it: nested repetitions cost the parser as well.
	if len(expr) > MaxPatternBytes {
		return pattern{}, fmt.Sprintf("longer than %d bytes", MaxPatternBytes)
	}
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return pattern{}, clip(text.Printable(err.Error()), 200)
	}
	if p.size = instructions(tree); p.size > MaxPatternSize {
		return pattern{}, fmt.Sprintf("compiles to more than %d instructions: use smaller repetitions", MaxPatternSize)
	}
	if p.Regexp, err = regexp.Compile(expr); err != nil {
		return pattern{}, clip(text.Printable(err.Error()), 200)
	}
	return p, ""
}

// instructions is about how many of them regexp/syntax makes of an expression. It stops counting some way above
// MaxPatternSize.
func instructions(re *syntax.Regexp) int {
	sum := 0
	for _, sub := range re.Sub {
		sum += instructions(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		sum = len(re.Rune)
	case syntax.OpRepeat:
		// A repetition without an upper end has Max -1, so the lower one counts.
		times := max(re.Min, re.Max, 1)
		sum = (sum + 1) * times
	case syntax.OpAlternate:
		sum += len(re.Sub) - 1
	case syntax.OpCapture, syntax.OpStar:
		sum += 2
	default:
		sum++
	}
	return min(sum, 100*MaxPatternSize)
}

// cheapMatch is how many steps, of one instruction at one byte, are surely made within a fraction of a second.
const cheapMatch = 4 << 20

// match reports whether the body matches. What may take long asks ctx in between, which is slower: the library then reads
// the body rune by rune.
func (p pattern) match(ctx context.Context, body []byte) (bool, error) {
	switch {
	case p.Regexp == nil:
		return false, nil
	// Without the reader, the library may use its fastest machine.
	case p.size*len(body) <= cheapMatch:
		return p.Match(body), nil
	}
	in := &runes{ctx: ctx, left: body}
	found := p.MatchReader(in)
	// A reader that fails looks like the end of the body, so a match before the error does not count either.
	return found && in.err == nil, in.err
}

// runes reads a body until ctx ends.
type runes struct {
	ctx  context.Context // a RuneReader has no other way to it
	left []byte
	read int
	err  error
}

// ReadRune reads a rune.
func (r *runes) ReadRune() (c rune, size int, err error) {
	// Asking for each rune would take longer than the match.
	if r.read++; r.read%256 == 0 && r.err == nil {
		r.err = r.ctx.Err()
	}
	switch {
	case r.err != nil:
		return 0, 0, r.err
	case len(r.left) == 0:
		return 0, 0, io.EOF
	}
	c, size = utf8.DecodeRune(r.left)
	r.left = r.left[size:]
	return c, size, nil
}
