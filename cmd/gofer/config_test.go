package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/worker/natsserver"
)

func TestEveryBadVariableIsNamedAtOnceWithoutItsValue(t *testing.T) {
	const secret = "hunter2-secret"
	for name, value := range map[string]string{
		"GOFER_CONCURRENCY": secret, "GOFER_ATTEMPT_TIMEOUT": "11m", "GOFER_QUEUES": "UPPER:" + secret, "GOFER_STRATEGY": "best",
		"GOFER_RETRY_MAX_ATTEMPTS": "11", "GOFER_RETRY_JITTER": "maybe", "GOFER_BREAKER_WINDOW": "0", "GOFER_REPLICAS": "2",
		"GOFER_HTTP_ADDR": "0.0.0.0:9090", "GOFER_EMBEDDED_ADDR": "10.0.0.1:4222", "GOFER_LOG_LEVEL": "loud", "GOFER_CONCURENCY": "5",
		"GOFER_NATS_PASWORD": secret, "GOFER_HEALTH_CHECK_URL": "http://user:" + secret + "@a.test/", "GOFER_HEALTH_CHECK_INTERVAL": "0",
		"GOFER_NATS_URL": "nats://u:" + secret + "@[::1", "GOFER_NATS_NKEY": secret, "GOFER_NATS_CA": "/nowhere/ca.pem", "GOFER_NATS_CREDS": "/nowhere/creds",
		"GOFER_PROXIES": "http://a.test:1, ftp://u:" + secret + "@b.test",
	} {
		t.Setenv(name, value)
	}
	code, _, errOut := gofer(t, "", "config", "check")
	if code != exitConfig {
		t.Errorf("exit code = %d, want %d", code, exitConfig)
	}
	for _, want := range []string{
		"GOFER_CONCURRENCY:", "GOFER_ATTEMPT_TIMEOUT:", "GOFER_QUEUES:", "GOFER_STRATEGY:", "GOFER_RETRY_MAX_ATTEMPTS:",
		"GOFER_RETRY_JITTER:", "GOFER_BREAKER_WINDOW:", "GOFER_REPLICAS:", "GOFER_HTTP_ADDR:", "GOFER_EMBEDDED_ADDR:", "GOFER_LOG_LEVEL:",
		"GOFER_HEALTH_CHECK_URL:", "GOFER_HEALTH_CHECK_INTERVAL:", "GOFER_NATS_URL:", "GOFER_NATS_NKEY:", "GOFER_NATS_CA:", "GOFER_NATS_CREDS:",
		"GOFER_PROXIES: entry 2:",
		"GOFER_CONCURENCY: no such variable, did you mean GOFER_CONCURRENCY?", "did you mean GOFER_NATS_PASSWORD?",
	} {
		if !strings.Contains(errOut, want) {
			t.Errorf("%q is not named in:\n%s", want, errOut)
		}
	}
	if lines := strings.Count(errOut, "\n"); lines != 20 {
		t.Errorf("%d lines, want one for each of the 20 variables:\n%s", lines, errOut)
	}
	if strings.Contains(errOut, "_GOFER_") {
		t.Errorf("a variable bears a name that nobody can set:\n%s", errOut)
	}
	if strings.Contains(errOut, secret) {
		t.Errorf("a value was printed:\n%s", errOut)
	}
}

func TestKubernetesServiceVariablesAreNotGofers(t *testing.T) {
	for _, name := range []string{"GOFER_SERVICE_HOST", "GOFER_SERVICE_PORT", "GOFER_SERVICE_PORT_HTTP", "GOFER_PORT", "GOFER_PORT_9090_TCP", "GOFER_METRICS_SERVICE_HOST"} {
		t.Setenv(name, "tcp://10.0.0.1:9090")
	}
	if code, _, errOut := gofer(t, "", "config", "check"); code != exitOK {
		t.Errorf("exit code = %d, %s", code, errOut)
	}
}

func TestStrayVariablesWithoutThePrefixChangeNothing(t *testing.T) {
	t.Setenv("CONCURRENCY", "7")
	t.Setenv("PREFIX", "other")
	c, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	if c.Concurrency != 64 || c.Prefix != "gofer" {
		t.Errorf("concurrency %d, prefix %s; want the defaults", c.Concurrency, c.Prefix)
	}
}

func TestDurationsAreReadAsTextOrAsSeconds(t *testing.T) {
	t.Setenv("GOFER_ATTEMPT_TIMEOUT", "2.5")
	t.Setenv("GOFER_RETRY_BASE_DELAY", "1500ms")
	t.Setenv("GOFER_MAX_WAIT", "")
	c, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	if c.AttemptTimeout.Seconds() != 2.5 || c.Retry.BaseDelay.Seconds() != 1.5 || c.MaxWait.Seconds() != 86400 {
		t.Errorf("durations = %s, %s, %s; want 2.5s, 1.5s and the default of 24h", c.AttemptTimeout, c.Retry.BaseDelay, c.MaxWait)
	}
}

func TestSecretsCanStandInFilesAndAreNeverShown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("from-the-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOFER_NATS_USER", "u")
	t.Setenv("GOFER_NATS_PASSWORD_FILE", file)
	t.Setenv("GOFER_NATS_PASSWORD", "")
	c, err := loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	if c.NATSPassword != "from-the-file" {
		t.Errorf("password = %q, want the file's", c.NATSPassword)
	}
	_, out, _ := gofer(t, "", "config", "show")
	if strings.Contains(out, "from-the-file") || !strings.Contains(out, "GOFER_NATS_PASSWORD") {
		t.Errorf("gofer config show printed a secret, or hid the variable:\n%s", out)
	}
}

func TestEveryBrokenLineOfTheProxyListIsNamedWithoutItsText(t *testing.T) {
	file := filepath.Join(t.TempDir(), "proxies.txt")
	list := "# good and bad\nhttp://user:s3cret@proxy.test:8080\nftp://user:s3cret@proxy.test\n\nuser:s3cret@proxy.test:8080\nhttp://proxy.test:8081 weight=many\n"
	if err := os.WriteFile(file, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOFER_PROXIES_FILE", file)
	code, _, errOut := gofer(t, "", "config", "check")
	if code != exitConfig {
		t.Errorf("exit code = %d, want %d", code, exitConfig)
	}
	for _, want := range []string{"line 3", "line 5", "line 6"} {
		if !strings.Contains(errOut, want) {
			t.Errorf("%s is not named in:\n%s", want, errOut)
		}
	}
	if strings.Contains(errOut, "s3cret") || strings.Contains(errOut, "line 2") {
		t.Errorf("a password or a good line was printed:\n%s", errOut)
	}
}

func TestBadCredentialsAndSecretsAreNamedBeforeTheyAreUsed(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	junk, empty := file("junk", "hunter2"), file("empty", " \n")
	for _, c := range []struct{ set, want string }{
		{"NATS_CA=" + junk, "GOFER_NATS_CA: no PEM file"},
		{"NATS_CA=" + dir, "GOFER_NATS_CA: "},
		{"NATS_CREDS=" + junk, "GOFER_NATS_CREDS: no credentials file"},
		{"NATS_CREDS=" + dir, "GOFER_NATS_CREDS: "},
		{"NATS_CERT=" + junk, "GOFER_NATS_CERT: given without GOFER_NATS_KEY"},
		{"NATS_KEY=" + junk, "GOFER_NATS_KEY: given without GOFER_NATS_CERT"},
		{"NATS_CERT=" + junk + " NATS_KEY=" + junk, "GOFER_NATS_CERT, GOFER_NATS_KEY: "},
		{"NATS_PASSWORD=x", "GOFER_NATS_PASSWORD: given without GOFER_NATS_USER"},
		{"NATS_TOKEN=x NATS_USER=y", "GOFER_NATS_TOKEN: given beside GOFER_NATS_USER"},
		{"NATS_CREDS_FILE=" + junk, "did you mean GOFER_NATS_CREDS?"},
		{"NATS_USER_FILE=" + junk, "did you mean GOFER_NATS_USER?"},
		{"ADMIN_TOKEN_FILE=" + empty, "GOFER_ADMIN_TOKEN_FILE: the file is empty"},
		{"ADMIN_TOKEN_FILE=" + file("two", "one\ntwo"), "GOFER_ADMIN_TOKEN: "},
		{"ADMIN_TOKEN_FILE=" + file("long", strings.Repeat("x", 1025)), "GOFER_ADMIN_TOKEN: "},
		{"HTTP_ADDR=127.0.0.1:70000", "GOFER_HTTP_ADDR: the port"},
	} {
		t.Run(c.set, func(t *testing.T) {
			t.Setenv("GOFER_ADMIN_TOKEN", "") // the program sets it to what the file holds
			for pair := range strings.FieldsSeq(c.set) {
				name, value, _ := strings.Cut(pair, "=")
				t.Setenv("GOFER_"+name, value)
			}
			code, out, errOut := gofer(t, "", "config", "check", "--json")
			if code != exitConfig || strings.Count(errOut, "\n") != 1 || !strings.Contains(errOut, c.want) || strings.Contains(errOut, "hunter2") {
				t.Errorf("exit %d, %q; want %d and %q alone", code, errOut, exitConfig, c.want)
			}
			if !strings.HasPrefix(out, `{"ok":false,"reasons":["`) {
				t.Errorf("printed %q, want the reasons as JSON", out)
			}
		})
	}
	for _, verb := range []string{"config show", "doctor"} {
		t.Setenv("GOFER_CONCURRENCY", "many")
		if code, out, _ := gofer(t, "", append(strings.Fields(verb), "--json")...); code != exitConfig || !strings.Contains(out, `"ok":false`) || !strings.Contains(out, "GOFER_CONCURRENCY: ") {
			t.Errorf("%s --json: exit %d, printed %q", verb, code, out)
		}
	}
}

func TestTakenPortsAreNamedWithTheRemedy(t *testing.T) {
	w := newWorld(t, nil)
	taken := strings.TrimPrefix(w.nats.URL(), "nats://")
	t.Setenv("GOFER_HTTP_ADDR", taken)
	if code, _, errOut := gofer(t, "", "worker"); code != exitConfig || !strings.Contains(errOut, "GOFER_HTTP_ADDR") {
		t.Errorf("taken HTTP port: exit %d, %s", code, errOut)
	}
	t.Setenv("GOFER_NATS_URL", "")
	t.Setenv("GOFER_EMBEDDED_ADDR", taken)
	t.Setenv("GOFER_DATA_DIR", t.TempDir())
	if code, _, errOut := gofer(t, "", "worker"); code != exitConfig || !strings.Contains(errOut, "GOFER_HTTP_ADDR") || !strings.Contains(errOut, "GOFER_EMBEDDED_ADDR") {
		t.Errorf("both ports taken: exit %d, %s; want both named", code, errOut)
	}
	t.Setenv("GOFER_HTTP_ADDR", freeAddr(t))
	if code, _, errOut := gofer(t, "", "worker"); code != exitConfig || !strings.Contains(errOut, "GOFER_NATS_URL=nats://"+taken) {
		t.Errorf("taken NATS port: exit %d, %s", code, errOut)
	}
	elsewhere := config{EmbeddedAddr: "192.0.2.1:4222"}
	if err := elsewhere.withoutServer(natsserver.CheckAddr(t.Context(), elsewhere.EmbeddedAddr)); err == nil || strings.Contains(err.Error(), "taken") || !strings.Contains(err.Error(), "GOFER_EMBEDDED_ADDR: cannot listen") {
		t.Errorf("address of another machine: %v, want it told from a taken one", err)
	}
}

func TestTwoWorkersNeverShareADataFolder(t *testing.T) {
	w := newWorld(t, nil)
	t.Setenv("GOFER_NATS_URL", "")
	t.Setenv("GOFER_DATA_DIR", t.TempDir())
	t.Setenv("GOFER_EMBEDDED_ADDR", freeAddr(t))
	first := w.worker(freeAddr(t))
	t.Setenv("GOFER_EMBEDDED_ADDR", freeAddr(t))
	t.Setenv("GOFER_HTTP_ADDR", freeAddr(t))
	if code, _, errOut := gofer(t, "", "worker"); code != exitConfig || !strings.Contains(errOut, "GOFER_DATA_DIR") || !strings.Contains(errOut, "GOFER_NATS_URL") {
		t.Errorf("a second worker on the folder: exit %d, %s; want %d and what to do", code, errOut, exitConfig)
	}
	first.wait(t)
	w.worker(freeAddr(t)) // the folder is free again
}

func TestUsageNamesEveryVariableOnce(t *testing.T) {
	_, out, _ := gofer(t, "", "config", "usage")
	for _, v := range variables() {
		if n := strings.Count(out, " "+v.name+" "); n != 1 {
			t.Errorf("%s stands %d times in the usage, want once", v.name, n)
		}
		if v.desc == "" {
			t.Errorf("%s has no description", v.name)
		}
	}
}

func TestListsAndNumbersAreReadAsWritten(t *testing.T) {
	for name, value := range map[string]string{
		"GOFER_QUEUES": " critical : 6 , low:1,", "GOFER_RETRY_STATUS_CODES": "429, 503 ", "GOFER_CONCURRENCY": " 8 ", "GOFER_STRATEGY": " random\n",
		"GOFER_PROXIES":  "http://a:1 id=a tags=x,y, http://b:2 id=b,http://u:p,w@c:3 id=c,\n# none\nhttp://d:4 id=d",
		"GOFER_NATS_URL": "nats://127.0.0.1:1 , nats://127.0.0.1:2",
	} {
		t.Setenv(name, value)
	}
	c, proxies, err := loadWorkerConfig()
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.Queues, c.Retry.StatusCodes, c.Concurrency, c.Strategy); got != "[{critical 6} {low 1}] [429 503] 8random" {
		t.Errorf("read %s", got)
	}
	var got []string
	for _, p := range proxies {
		password, _ := p.URL.User.Password()
		got = append(got, p.ID+password+strings.Join(p.Tags, "+"))
	}
	if !slices.Equal(got, []string{"ax+y", "b", "cp,w", "d"}) {
		t.Errorf("proxies = %q, want a with the tags x and y, b, c with the password p,w, and d", got)
	}
}

func TestNumbersThatPeopleDoNotMeanAreRefused(t *testing.T) {
	for _, set := range []string{
		"CONCURRENCY=010", "CONCURRENCY=0x40", "CONCURRENCY=1_0", "CONCURRENCY=1e1", "MAX_BODY_BYTES=99999999999999999999", "REPLICAS=3.0", "HOST_RATE=0x1p-1",
		"HOST_RATE=NaN", "HOST_RATE=-1", "HOST_RATE=1e400", "RETRY_MULTIPLIER=Inf", "RETRY_BUDGET=-0.1", "RETRY_STATUS_CODES=0429", "RETRY_STATUS_CODES=429;503",
		"RETRY_STATUS_CODES=,", "RETRY_STATUS_CODES=99999999999999999999", "QUEUES=a:01", "QUEUES=a:1e2", "QUEUES=,", "ATTEMPT_TIMEOUT=-5s", "ATTEMPT_TIMEOUT=0x1p4",
		"MAX_WAIT=9223372036.854776", "MAX_WAIT=-1", "MAX_WAIT=NaN", "RETRY_TIMEOUT=-1ns", "RESULTS_MAX_BYTES=-1", "DRAIN_TIMEOUT=1e-3", "RESULTS_MAX_AGE=2562047h",
		"BREAKER_WINDOW=1e300", "JOBS_MAX_MSGS=-1", "RETRY_BASE_DELAY=Infinity",
	} {
		t.Run(set, func(t *testing.T) {
			name, value, _ := strings.Cut("GOFER_"+set, "=")
			t.Setenv(name, value)
			if code, _, errOut := gofer(t, "", "config", "check"); code != exitConfig || !strings.Contains(errOut, name) || strings.Count(errOut, "\n") != 1 {
				t.Errorf("exit %d, %s; want %d and %s alone", code, errOut, exitConfig, name)
			}
		})
	}
}

func TestSecretsInFilesAreReadAsEditorsWriteThem(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct{ text, want string }{
		"mark": {"\ufefftoken\r\n", "token"}, "utf16": {"\xff\xfet\x00", "UTF-16"}, "latin1": {"tok\xe9n", "not UTF-8"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("GOFER_ADMIN_TOKEN", " ")
		t.Setenv("GOFER_ADMIN_TOKEN_FILE", path)
		if got, err := loadConfig(); got.AdminToken != c.want && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: token %q, %v; want %q", name, got.AdminToken, err, c.want)
		}
	}
}
