package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// Error lists everything that is wrong with the configuration. Reasons begin with the variable and hold no value of
// a secret. cmd/gofer maps it to exit code 78.
type Error struct{ Reasons []string }

// Error is a line for each reason.
func (e *Error) Error() string { return strings.Join(e.lines(), "\n") }

// lines are the reasons, each as a line of its own.
func (e *Error) lines() []string {
	lines := make([]string, len(e.Reasons))
	for i, reason := range e.Reasons {
		lines[i] = "configuration: " + reason
	}
	return lines
}

// Load reads an environment and checks all of it: misspelt names, files with secrets, types, ranges. Its error is an *Error that
// names everything that is wrong, so that an owner does not repair one variable after the other. The Config that comes with an
// error has defaults in place of bad values.
func Load(env Environment) (Config, error) {
	var c Config
	// Misspelt names come first: they are often the reason for what follows.
	reasons := misspelt(env)
	set, bad := env.texts()
	c.set = set
	c.urlFile = strings.TrimSpace(env["GOFER_PROXIES_URL_FILE"]) != ""
	reasons = append(reasons, bad...)
	reasons = append(reasons, c.fill(set)...)
	// check runs also after mistakes, so that an owner learns of all of them at once.
	reasons = append(reasons, c.check()...)
	if err := checkNoPipe(c.ProxiesFile); err != nil {
		reasons = append(reasons, "GOFER_PROXIES_FILE: "+err.Error())
		c.ProxiesFile = "" // nobody reads it
	}
	c.context = env[contextVariable]
	// The context has replaced variables that the owner may be looking for.
	if c.context != "" && slices.ContainsFunc(reasons, func(r string) bool { return strings.HasPrefix(r, "GOFER_NATS_") }) {
		reasons = append(reasons, fmt.Sprintf("context %q: it takes the place of all variables GOFER_NATS_…", c.context))
	}
	if len(reasons) > 0 {
		return c, &Error{Reasons: reasons}
	}
	return c, nil
}

// LoadWorker also reads the proxies. The *Error names what is wrong with either, so that all of it can be repaired
// in one go. The list of GOFER_PROXIES_URL is not fetched here: a worker must start while its server is down.
func LoadWorker(env Environment) (Config, []proxylist.Proxy, error) {
	c, err := Load(env)
	proxies, proxiesErr := c.ReadProxies()
	var reasons []string
	for _, err := range []error{err, proxiesErr} {
		if bad, ok := errors.AsType[*Error](err); ok {
			reasons = append(reasons, bad.Reasons...)
		}
	}
	if len(reasons) > 0 {
		return c, nil, &Error{Reasons: reasons}
	}
	return c, proxies, nil
}

// IsSet reports whether a variable has a value of its own. An empty variable has none, unless it may be empty.
func (c *Config) IsSet(name string) bool {
	_, set := c.set[name]
	return set
}

// Show is the value of a variable and where it comes from, "environment", "context NAME" or "default". Of a secret it shows only
// that it is set. The value is the text as it was written, so "1m" is not shown as "60s".
func (c *Config) Show(v Variable) (value, source string) {
	source = "environment"
	if c.context != "" && strings.HasPrefix(v.Name, "GOFER_NATS_") {
		source = "context " + c.context
	}
	switch set, is := c.set[v.Name]; {
	case !is:
		// Also if the default is empty.
		return v.Default, "default"
	case v.Secret:
		return "(set)", source
	default:
		return set, source
	}
}

// ownByMachine are the variables whose values differ within one fleet, so they do not belong into its hash.
func ownByMachine() []string {
	// One worker may have the server of the others inside, and they reach it by its address.
	return []string{"GOFER_WORKER_NAME", "GOFER_HTTP_ADDR", "GOFER_EMBEDDED_ADDR", "GOFER_DATA_DIR", "GOFER_NATS_URL"}
}

// Hash distinguishes two configurations: equal hashes mean equal values of all variables that a fleet shares. A metric shows
// it, so that a worker with an old configuration stands out. It holds nothing of a secret, for short ones could be guessed from
// it.
func (c *Config) Hash() string {
	// The order of Variables is fixed, and %q separates values that hold line ends.
	sum := sha256.New()
	for _, v := range Variables() {
		// Show masks secrets, so only whether one is set goes into the sum.
		if value, _ := c.Show(v); !slices.Contains(ownByMachine(), v.Name) {
			fmt.Fprintf(sum, "%s=%q\n", v.Name, value)
		}
	}
	// Six bytes distinguish the configurations of one fleet; the hash protects nothing.
	return hex.EncodeToString(sum.Sum(nil)[:6])
}
