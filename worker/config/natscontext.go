package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gofer-mq/gofer/jobs/text"
)

// contextVariable names a context of the nats command. In an Environment that Choose returned it is set only if the context is
// used.
const contextVariable = "NATS_CONTEXT"

// contextServer is the server of a context without a URL, as the nats command has it.
const contextServer = "nats://127.0.0.1:4222"

// borrowedNames are variables of other programs that an Environment has beside those of gofer.
func borrowedNames() []string { return []string{contextVariable, "XDG_CONFIG_HOME", "HOME"} }

// Choose returns the environment with the server that a user asks for: server is a URL, context the name of a context of the nats
// command, and empty means that the user does not say. Without either, GOFER_NATS_URL decides, and without that NATS_CONTEXT. A
// context replaces all variables GOFER_NATS_…, a URL only that of the server. The error is an *Error.
func (env Environment) Choose(server, context string) (Environment, error) {
	chosen := maps.Clone(env)
	// A server that is named anywhere wins over NATS_CONTEXT, which other programs need as well.
	if context == "" && server == "" && strings.TrimSpace(env["GOFER_NATS_URL"]+env["GOFER_NATS_URL_FILE"]) == "" {
		context = strings.TrimSpace(env[contextVariable])
	}
	delete(chosen, contextVariable)
	if context != "" {
		settings, err := env.readContext(context)
		if err != nil {
			return nil, &Error{Reasons: []string{fmt.Sprintf("context %q: %v", context, err)}}
		}
		// All of them, so that credentials of one server never reach another.
		maps.DeleteFunc(chosen, func(name, _ string) bool { return strings.HasPrefix(name, "GOFER_NATS_") })
		maps.Copy(chosen, settings)
		chosen[contextVariable] = context
	}
	if server != "" {
		chosen["GOFER_NATS_URL"] = server
		delete(chosen, "GOFER_NATS_URL_FILE")
	}
	return chosen, nil
}

// natsContext is the part of a context's file that gofer uses, or has to refuse. Members that it does not list have
// no influence on how the server is reached, or on who the user is.
type natsContext struct {
	URL      string `json:"url"`
	Creds    string `json:"creds"`
	Nkey     string `json:"nkey"`
	User     string `json:"user"`
	Password string `json:"password"`
	Token    string `json:"token"`
	CA       string `json:"ca"`
	Cert     string `json:"cert"`
	Key      string `json:"key"`
	Inbox    string `json:"inbox_prefix"`
	Domain   string `json:"jetstream_domain"`
	TLSFirst bool   `json:"tls_first"`

	// Members that supported refuses, if they have a value.
	NSC       string `json:"nsc"`
	UserJWT   string `json:"user_jwt"`
	Socks     string `json:"socks_proxy"`
	APIPrefix string `json:"jetstream_api_prefix"`
	WinStore  string `json:"windows_cert_store"`
}

// readContext reads a context as variables of gofer. Its errors hold no value of the file. The context that the
// nats command has selected is not used by itself: it changes under a worker without a trace.
func (env Environment) readContext(name string) (Environment, error) {
	dir, err := env.contextDir()
	if err != nil {
		return nil, err
	}
	// The name becomes a part of a path.
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return nil, errors.New("not the name of a context, which has no slashes and does not begin with a dot")
	}
	data, err := readSecret(filepath.Join(dir, name+".json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no such context in %s; %s", dir, knownContexts(dir))
	}
	if err != nil {
		return nil, err
	}
	if data, err = text.Document(data); err != nil {
		return nil, err
	}
	var c natsContext
	if json.Unmarshal(data, &c) != nil { // its error may quote a secret
		return nil, fmt.Errorf("%s is not the JSON of a context", filepath.Join(dir, name+".json"))
	}
	if err := c.supported(); err != nil {
		return nil, err
	}
	return c.variables(env["HOME"]), nil
}

// contextDir is where the nats command keeps its contexts. It follows the XDG rule as that command does, on every
// system.
func (env Environment) contextDir() (string, error) {
	parent := env["XDG_CONFIG_HOME"]
	if parent == "" && env["HOME"] == "" {
		return "", errors.New("neither XDG_CONFIG_HOME nor HOME says where contexts are")
	}
	if parent == "" {
		parent = filepath.Join(env["HOME"], ".config")
	}
	return filepath.Join(parent, "nats", "context"), nil
}

// knownContexts says which contexts there are, at most twenty.
func knownContexts(dir string) string {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(files) == 0 {
		return "there are none: nats context add makes one"
	}
	names := make([]string, 0, len(files))
	// A folder of hundreds is not listed in an error.
	for _, file := range files[:min(len(files), 20)] {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".json"))
	}
	slices.Sort(names)
	return "there are " + text.Printable(strings.Join(names, ", "))
}

// supported names the settings that gofer cannot follow: without them it would talk to another server, or as another user.
func (c *natsContext) supported() error {
	var unsupported []string
	for _, setting := range []struct{ name, value string }{
		{"nsc", c.NSC}, {"user_jwt", c.UserJWT}, {"socks_proxy", c.Socks}, {"jetstream_api_prefix", c.APIPrefix}, {"windows_cert_store", c.WinStore},
	} {
		if setting.value != "" {
			unsupported = append(unsupported, setting.name)
		}
	}
	if len(unsupported) > 0 {
		return errors.New("gofer does not support its " + strings.Join(unsupported, ", "))
	}
	return nil
}

// variables are the settings as variables of gofer. As with the nats command, paths may begin with ~ and name variables, and of
// several credentials the user counts before the file, and the file before the nkey.
func (c *natsContext) variables(home string) Environment {
	// Only these members are paths; a password that begins with ~ stays as it is.
	path := func(name string) string {
		name = os.ExpandEnv(name)
		if rest, ok := strings.CutPrefix(name, "~"); ok {
			return home + rest
		}
		return name
	}
	env := Environment{
		"GOFER_NATS_URL": c.URL, "GOFER_NATS_TOKEN": c.Token, "GOFER_NATS_CA": path(c.CA), "GOFER_NATS_CERT": path(c.Cert),
		"GOFER_NATS_KEY": path(c.Key), "GOFER_NATS_INBOX_PREFIX": c.Inbox, "GOFER_NATS_JS_DOMAIN": c.Domain, "GOFER_NATS_TLS_FIRST": fmt.Sprint(c.TLSFirst),
	}
	// The embedded server must not be started because a context names no server.
	if c.URL == "" {
		env["GOFER_NATS_URL"] = contextServer
	}
	// One kind of credentials only, so that the server is not offered a second one.
	switch {
	case c.User != "":
		env["GOFER_NATS_USER"], env["GOFER_NATS_PASSWORD"] = c.User, c.Password
	case c.Creds != "":
		env["GOFER_NATS_CREDS"] = path(c.Creds)
	default:
		env["GOFER_NATS_NKEY"] = path(c.Nkey)
	}
	return env
}
