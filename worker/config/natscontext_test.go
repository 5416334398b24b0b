package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/worker/config"
)

// writeContext writes a context of the nats command and returns an environment that finds it.
func writeContext(t *testing.T, name, text string) config.Environment {
	t.Helper()
	home := t.TempDir()
	dir := filepath.Join(home, ".config", "nats", "context")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Environment{"HOME": home}
}

func TestTheServerIsThatOfTheFirstWhoNamesOne(t *testing.T) {
	env := writeContext(t, "prod", `{"url":"nats://context:1","user":"u","password":"s3cret"}`)
	const variable = "nats://variable:1"
	for _, c := range []struct{ server, context, url, named, want, user string }{
		{"", "", "", "", "", ""},
		{"", "", "", "prod", "nats://context:1", "u"},
		{"", "", variable, "prod", variable, "v"},
		{"", "prod", variable, "", "nats://context:1", "u"},
		{"nats://flag:1", "", variable, "prod", "nats://flag:1", "v"},
		{"nats://flag:1", "", "", "prod", "nats://flag:1", "v"},
		{"nats://flag:1", "prod", variable, "", "nats://flag:1", "u"},
	} {
		env["GOFER_NATS_URL"], env["NATS_CONTEXT"], env["GOFER_NATS_USER"] = c.url, c.named, "v"
		if c.user == "" {
			delete(env, "GOFER_NATS_USER")
		}
		chosen, err := env.Choose(c.server, c.context)
		if err != nil {
			t.Fatal(err)
		}
		got, err := config.Load(chosen)
		if err != nil || got.NATSURL != c.want || got.NATSUser != c.user {
			t.Errorf("%+v: got %q as %q, %v", c, got.NATSURL, got.NATSUser, err)
		}
	}
}

func TestAContextTakesThePlaceOfAllVariables(t *testing.T) {
	env := writeContext(t, "prod", `{"description":"d","inbox_prefix":"_IN","jetstream_domain":"hub","tls_first":true,"color_scheme":"x","token":"s3cret"}`)
	for _, name := range []string{"GOFER_NATS_CREDS", "GOFER_NATS_PASSWORD_FILE", "GOFER_NATS_URL", "GOFER_NATS_CA"} {
		env[name] = "other"
	}
	env["GOFER_QUEUES"] = "a"
	chosen, err := env.Choose("", "prod")
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Load(chosen)
	if err != nil {
		t.Fatal(err)
	}
	if got.NATSURL != "nats://127.0.0.1:4222" || got.NATSCreds != "" || got.NATSCA != "" || got.NATSInboxPrefix != "_IN" || got.NATSJSDomain != "hub" ||
		!got.NATSTLSFirst || got.NATSToken != "s3cret" || got.Queues[0].Name != "a" {
		t.Errorf("got %+v", got)
	}
	for _, v := range config.Variables() {
		value, source := got.Show(v)
		switch {
		case strings.Contains(value, "s3cret"):
			t.Errorf("%s shows the secret", v.Name)
		case v.Name == "GOFER_NATS_TOKEN" && source != "context prod", v.Name == "GOFER_QUEUES" && source != "environment":
			t.Errorf("%s comes from %s", v.Name, source)
		}
	}
	if env["GOFER_NATS_CREDS"] != "other" {
		t.Error("the environment itself was changed")
	}
}

func TestPathsOfAContextMayBeginAtHome(t *testing.T) {
	env := writeContext(t, "c", `{"creds":"~/no.creds","nkey":"ignored"}`)
	chosen, err := env.Choose("", "c")
	if err != nil || chosen["GOFER_NATS_CREDS"] != env["HOME"]+"/no.creds" || chosen["GOFER_NATS_NKEY"] != "" {
		t.Fatalf("got %v, %v", chosen, err)
	}
	_, err = config.Load(chosen)
	if err == nil || !strings.Contains(err.Error(), "GOFER_NATS_CREDS") || !strings.Contains(err.Error(), `context "c"`) {
		t.Errorf("got %v, want the missing file and the context named", err)
	}
}

func TestABadContextIsNamedWithoutItsSecrets(t *testing.T) {
	for text, want := range map[string]string{
		`{"password":"s3cret"`:                 "not the JSON of a context",
		`{"password":["s3cret"]}`:              "not the JSON of a context",
		`{"nsc":"nsc://a/b/s3cret"}`:           "does not support its nsc",
		`{"socks_proxy":"s3cret","nsc":"a"}`:   "does not support its nsc, socks_proxy",
		`{"user_jwt":"s3cret"}`:                "user_jwt",
		`{"jetstream_api_prefix":"s3cret.js"}`: "jetstream_api_prefix",
	} {
		_, err := writeContext(t, "bad", text).Choose("", "bad")
		bad, ok := errors.AsType[*config.Error](err)
		if !ok || !strings.Contains(err.Error(), want) || !strings.Contains(bad.Reasons[0], `context "bad"`) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: got %v, want an Error with %q", text, err, want)
		}
	}
	env := writeContext(t, "known", "{}")
	for name, want := range map[string]string{"unknown": "there are known", "../known": "not the name", "a/b": "not the name", ".": "not the name"} {
		if _, err := env.Choose("", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	if _, err := (config.Environment{}).Choose("", "a"); err == nil || !strings.Contains(err.Error(), "HOME") {
		t.Errorf("without a home: got %v", err)
	}
	if _, err := (config.Environment{"XDG_CONFIG_HOME": t.TempDir()}).Choose("", "a"); err == nil || !strings.Contains(err.Error(), "nats context add") {
		t.Errorf("without contexts: got %v", err)
	}
}
