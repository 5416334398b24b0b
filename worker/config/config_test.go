package config_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/config"
)

// reasonsOf are what is wrong with an environment of a worker.
func reasonsOf(t *testing.T, env config.Environment) []string {
	t.Helper()
	_, _, err := config.LoadWorker(env)
	if err == nil {
		return nil
	}
	bad, ok := errors.AsType[*config.Error](err)
	if !ok {
		t.Fatalf("the error is a %T: %v", err, err)
	}
	return bad.Reasons
}

func writeFile(t *testing.T, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEveryBadVariableIsNamedAtOnceWithoutItsValue(t *testing.T) {
	const secret = "hunter2-secret"
	reasons := reasonsOf(t, config.Environment{
		"GOFER_CONCURRENCY": secret, "GOFER_ATTEMPT_TIMEOUT": "11m", "GOFER_QUEUES": "UPPER:" + secret, "GOFER_STRATEGY": "best",
		"GOFER_RETRY_MAX_ATTEMPTS": "11", "GOFER_RETRY_JITTER": "maybe", "GOFER_BREAKER_WINDOW": "0", "GOFER_REPLICAS": "2",
		"GOFER_HTTP_ADDR": "0.0.0.0:9090", "GOFER_EMBEDDED_ADDR": "10.0.0.1:4222", "GOFER_LOG_LEVEL": "loud", "GOFER_CONCURENCY": "5",
		"GOFER_NATS_PASWORD": secret, "GOFER_HEALTH_CHECK_URL": "http://user:" + secret + "@a.test/", "GOFER_HEALTH_CHECK_INTERVAL": "0",
		"GOFER_NATS_URL": "nats://u:" + secret + "@[::1", "GOFER_NATS_NKEY": secret, "GOFER_NATS_CA": "/nowhere/ca.pem", "GOFER_NATS_CREDS": "/nowhere/creds",
		"GOFER_PROXIES": "http://a.test:1, ftp://u:" + secret + "@b.test",
	})
	text := strings.Join(reasons, "\n")
	for _, want := range []string{
		"GOFER_CONCURRENCY:", "GOFER_ATTEMPT_TIMEOUT:", "GOFER_QUEUES:", "GOFER_STRATEGY:", "GOFER_RETRY_MAX_ATTEMPTS:",
		"GOFER_RETRY_JITTER:", "GOFER_BREAKER_WINDOW:", "GOFER_REPLICAS:", "GOFER_HTTP_ADDR:", "GOFER_EMBEDDED_ADDR:", "GOFER_LOG_LEVEL:",
		"GOFER_HEALTH_CHECK_URL:", "GOFER_HEALTH_CHECK_INTERVAL:", "GOFER_NATS_URL:", "GOFER_NATS_NKEY:", "GOFER_NATS_CA:", "GOFER_NATS_CREDS:",
		"GOFER_PROXIES: entry 2:", "set GOFER_ADMIN_TOKEN",
		"GOFER_CONCURENCY: no such variable, did you mean GOFER_CONCURRENCY?", "did you mean GOFER_NATS_PASSWORD?",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not named in:\n%s", want, text)
		}
	}
	if len(reasons) != 20 {
		t.Errorf("%d reasons, want one for each of the 20 variables:\n%s", len(reasons), text)
	}
	if strings.Contains(text, secret) {
		t.Errorf("a value was printed:\n%s", text)
	}
}

// TestEveryDurationOutOfRangeIsToldItsBoundAndAnExample: whether it is below, above, longer than any duration, or none at all.
func TestEveryDurationOutOfRangeIsToldItsBoundAndAnExample(t *testing.T) {
	durations := 0
	for _, v := range config.Variables() {
		// A default with a unit, or one of the words that stand for a duration.
		_, err := time.ParseDuration(v.Default)
		if number := strings.Trim(v.Default, "0123456789") == ""; v.Default != "auto" && v.Default != "off" && (err != nil || number) {
			continue
		}
		durations++
		for _, bad := range []string{"1e300", "9999999h", "-1s", "-1e300", "soon", "30d"} {
			reasons := reasonsOf(t, config.Environment{v.Name: bad})
			if len(reasons) != 1 || !strings.HasPrefix(reasons[0], v.Name+": not ") || strings.Contains(reasons[0], bad) {
				t.Errorf("%s=%s: %q, want one reason that names the variable and not the value", v.Name, bad, reasons)
				continue
			}
			_, example, found := strings.Cut(reasons[0], ", such as ")
			example, _, _ = strings.Cut(example, ":")
			if !found || !strings.Contains(reasons[0], "between ") && !strings.Contains(reasons[0], "above ") {
				t.Errorf("%s=%s: %q has no bound or no example", v.Name, bad, reasons[0])
			}
			if reasons := reasonsOf(t, config.Environment{v.Name: example}); len(reasons) > 0 {
				t.Errorf("%s: the example %q is refused: %q", v.Name, example, reasons)
			}
		}
	}
	if durations != 16 {
		t.Errorf("%d variables are durations, want 16", durations)
	}
}

// TestAFileThatNeverEndsOrIsAPipeIsRefused: a worker that starts waits for neither.
func TestAFileThatNeverEndsOrIsAPipeIsRefused(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, env := range map[string]config.Environment{
		"GOFER_ADMIN_TOKEN_FILE: the file is empty":                     {"GOFER_ADMIN_TOKEN_FILE": pipe},
		"GOFER_ADMIN_TOKEN_FILE: read /dev/zero: larger than 1 MiB":     {"GOFER_ADMIN_TOKEN_FILE": "/dev/zero"},
		"GOFER_PROXIES_FILE: it is a pipe, which can be read only once": {"GOFER_PROXIES_FILE": pipe},
		"GOFER_PROXIES_FILE: read /dev/zero: larger than 1 MiB":         {"GOFER_PROXIES_FILE": "/dev/zero"},
	} {
		if reasons := reasonsOf(t, env); len(reasons) != 1 || !strings.HasPrefix(reasons[0], want) {
			t.Errorf("%v: got %q, want %q", env, reasons, want)
		}
	}
	// A shell's <(command) is a pipe with a writer, and good for a secret.
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = read.Close() }()
	if _, err := write.WriteString("s3cret\n"); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	c, err := config.Load(config.Environment{"GOFER_ADMIN_TOKEN_FILE": fmt.Sprintf("/dev/fd/%d", read.Fd())})
	if err != nil || c.AdminToken != "s3cret" {
		t.Errorf("got %q, %v; want the secret of the pipe", c.AdminToken, err)
	}
}

func TestKubernetesServiceVariablesAreNotGofers(t *testing.T) {
	env := config.Environment{}
	for _, name := range []string{"GOFER_SERVICE_HOST", "GOFER_SERVICE_PORT", "GOFER_SERVICE_PORT_HTTP", "GOFER_PORT", "GOFER_PORT_9090_TCP", "GOFER_METRICS_SERVICE_HOST"} {
		env[name] = "tcp://10.0.0.1:9090"
	}
	if reasons := reasonsOf(t, env); len(reasons) > 0 {
		t.Errorf("refused: %q", reasons)
	}
}

// TestTheProcessEnvironmentIsReadByFullNames: a stray variable without the prefix changes nothing, and nothing is written.
func TestTheProcessEnvironmentIsReadByFullNames(t *testing.T) {
	for name, value := range map[string]string{
		"CONCURRENCY": "7", "PREFIX": "other", "GOFER_QUEUES": " a:2 ", "GOFER_MAX_WAIT": " ", "GOFER_HOST_RAET": "1", "GOFER_ADMIN_TOKEN_FILE": writeFile(t, "token", "s3cret\n"),
	} {
		t.Setenv(name, value)
	}
	before := os.Environ()
	env, err := config.OfProcess()
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(env)
	if err == nil || err.Error() != "configuration: GOFER_HOST_RAET: no such variable, did you mean GOFER_HOST_RATE?" {
		t.Errorf("the misspelt variable: %v", err)
	}
	if got := fmt.Sprint(c.Concurrency, c.Prefix, c.Queues, c.MaxWait, c.AdminToken); got != "64gofer[{a 2}] 24h0m0ss3cret" {
		t.Errorf("read %q, want the defaults, the queue a and the token", got)
	}
	if after := os.Environ(); !slices.Equal(before, after) {
		t.Errorf("the environment was changed: %q, before: %q", after, before)
	}
}

func TestEveryDefaultIsRead(t *testing.T) {
	c, err := config.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{}
	for _, v := range config.Variables() {
		value, source := c.Show(v)
		if source != "default" || value != v.Default {
			t.Errorf("%s is shown as %q (%s), want the default %q", v.Name, value, source, v.Default)
		}
		shown[v.Name] = value
	}
	// A default that cannot be read leaves its field at zero. Set by hand it is an error.
	maps.DeleteFunc(shown, func(_, value string) bool { return value == "" })
	if set, err := config.Load(shown); err != nil {
		t.Errorf("the defaults are refused when they are set: %v", err)
	} else if set.Hash() != c.Hash() {
		t.Error("the defaults, set by hand, make another configuration")
	}
}

func TestDurationsAreReadAsTextOrAsSeconds(t *testing.T) {
	c, err := config.Load(config.Environment{"GOFER_ATTEMPT_TIMEOUT": "2.5", "GOFER_RETRY_BASE_DELAY": "1500ms", "GOFER_MAX_WAIT": ""})
	if err != nil {
		t.Fatal(err)
	}
	if c.AttemptTimeout.Seconds() != 2.5 || c.Retry.BaseDelay.Seconds() != 1.5 || c.MaxWait.Seconds() != 86400 {
		t.Errorf("durations = %s, %s, %s; want 2.5s, 1.5s and the default of 24h", c.AttemptTimeout, c.Retry.BaseDelay, c.MaxWait)
	}
}

func TestSecretsCanStandInFilesAndAreNeverShown(t *testing.T) {
	c, err := config.Load(config.Environment{
		"GOFER_NATS_USER": "u", "GOFER_NATS_PASSWORD": "", "GOFER_NATS_PASSWORD_FILE": writeFile(t, "password", "from-the-file\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.NATSPassword != "from-the-file" {
		t.Errorf("password = %q, want the file's", c.NATSPassword)
	}
	for _, v := range config.Variables() {
		value, source := c.Show(v)
		if strings.Contains(value, "from-the-file") {
			t.Errorf("%s is shown as %q", v.Name, value)
		}
		if v.Name == "GOFER_NATS_PASSWORD" && (value != "(set)" || source != "environment") {
			t.Errorf("the password is shown as %q (%s), want that it is set", value, source)
		}
	}
}

func TestEveryBrokenLineOfTheProxyListIsNamedWithoutItsText(t *testing.T) {
	file := writeFile(t, "proxies.txt", "# good and bad\nhttp://user:s3cret@proxy.test:8080\nftp://user:s3cret@proxy.test\n\nuser:s3cret@proxy.test:8080\nhttp://proxy.test:8081 weight=many\n")
	reasons := reasonsOf(t, config.Environment{"GOFER_PROXIES_FILE": file})
	text := strings.Join(reasons, "\n")
	for _, want := range []string{"GOFER_PROXIES_FILE: line 3", "GOFER_PROXIES_FILE: line 5", "GOFER_PROXIES_FILE: line 6"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not named in:\n%s", want, text)
		}
	}
	if len(reasons) != 3 || strings.Contains(text, "s3cret") {
		t.Errorf("a password or a good line was printed:\n%s", text)
	}
}

func TestBadCredentialsAndSecretsAreNamedBeforeTheyAreUsed(t *testing.T) {
	dir := t.TempDir()
	junk, empty := writeFile(t, "junk", "hunter2"), writeFile(t, "empty", " \n")
	for _, c := range []struct{ set, want string }{
		{"NATS_CA=" + junk, "GOFER_NATS_CA: no PEM file"},
		{"NATS_CA=" + dir, "GOFER_NATS_CA: "},
		{"NATS_CREDS=" + junk, "GOFER_NATS_CREDS: no credentials file"},
		{"NATS_CREDS=" + dir, "GOFER_NATS_CREDS: "},
		{"NATS_CERT=" + junk, "GOFER_NATS_CERT: given without a key"},
		{"NATS_KEY=" + junk, "GOFER_NATS_KEY: given without a certificate"},
		{"NATS_CERT=" + junk + " NATS_KEY=" + junk, "GOFER_NATS_CERT, GOFER_NATS_KEY: "},
		{"NATS_PASSWORD=x", "GOFER_NATS_PASSWORD: given without a user name"},
		{"NATS_TOKEN=x NATS_USER=y", "GOFER_NATS_TOKEN: given beside a user name"},
		{"NATS_CREDS_FILE=" + junk, "did you mean GOFER_NATS_CREDS?"},
		{"NATS_USER_FILE=" + junk, "did you mean GOFER_NATS_USER?"},
		{"ADMIN_TOKEN_FILE=" + empty, "GOFER_ADMIN_TOKEN_FILE: the file is empty"},
		{"ADMIN_TOKEN_FILE=" + dir, "GOFER_ADMIN_TOKEN_FILE: "},
		{"ADMIN_TOKEN=x ADMIN_TOKEN_FILE=" + junk, "GOFER_ADMIN_TOKEN, GOFER_ADMIN_TOKEN_FILE: both are set"},
		{"ADMIN_TOKEN_FILE=" + writeFile(t, "two", "one\ntwo"), "GOFER_ADMIN_TOKEN: "},
		{"ADMIN_TOKEN_FILE=" + writeFile(t, "long", strings.Repeat("x", 1025)), "GOFER_ADMIN_TOKEN: "},
		{"HTTP_ADDR=127.0.0.1:70000", "GOFER_HTTP_ADDR: the port"},
	} {
		env := config.Environment{}
		for pair := range strings.FieldsSeq(c.set) {
			name, value, _ := strings.Cut(pair, "=")
			env["GOFER_"+name] = value
		}
		if got := reasonsOf(t, env); len(got) != 1 || !strings.Contains(got[0], c.want) || strings.Contains(got[0], "hunter2") {
			t.Errorf("%s: %q; want %q alone", c.set, got, c.want)
		}
	}
}

func TestListsAndNumbersAreReadAsWritten(t *testing.T) {
	list := writeFile(t, "proxies.txt", "http://e:5 id=d\nhttp://f:6 id=f\n")
	c, proxies, err := config.LoadWorker(config.Environment{
		"GOFER_NATS_TOKEN": " t ", "GOFER_PROXIES_FILE": list,
		"GOFER_QUEUES": " critical : 6 , low:1,", "GOFER_RETRY_STATUS_CODES": "429, 503 ", "GOFER_CONCURRENCY": " 8 ", "GOFER_STRATEGY": " random\n",
		"GOFER_PROXIES":  "http://a:1 id=a tags=x,y, http://b:2 id=b,http://u:p,w@c:3 id=c,\n# none\nhttp://d:4 id=d",
		"GOFER_NATS_URL": "nats://127.0.0.1:1 , nats://127.0.0.1:2",
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.Queues, c.Retry.StatusCodes, c.Concurrency, c.Strategy); got != "[{critical 6} {low 1}] [429 503] 8random" {
		t.Errorf("read %s", got)
	}
	var got []string
	for _, p := range proxies {
		password, _ := p.URL.User.Password()
		got = append(got, p.URL.Hostname()+password+strings.Join(p.Tags, "+"))
	}
	if !slices.Equal(got, []string{"ax+y", "b", "cp,w", "e", "f"}) {
		t.Errorf("proxies = %q, want a with the tags x and y, b, c with the password p,w, e instead of d, and f", got)
	}
	if c.NATSToken != " t " {
		t.Errorf("token = %q, want it with its blanks", c.NATSToken)
	}
}

func TestTheStallTimeoutMayBeOff(t *testing.T) {
	for written, want := range map[string]time.Duration{"": 30 * time.Second, "2m": 2 * time.Minute, "off": math.MinInt64} {
		c, proxies, err := config.LoadWorker(config.Environment{"GOFER_STALL_TIMEOUT": written})
		if err != nil {
			t.Errorf("GOFER_STALL_TIMEOUT=%s: %v", written, err)
			continue
		}
		if got := c.Daemon(proxies).StallTimeout; got != want {
			t.Errorf("GOFER_STALL_TIMEOUT=%s is %s, want %s", written, got, want)
		}
	}
}

func TestTheFirstByteTimeoutIsAWordOrADuration(t *testing.T) {
	for written, want := range map[string]jobs.AutoDuration{"": jobs.Auto, "auto": jobs.Auto, "off": jobs.Off, "1.5": jobs.AutoDuration(1500 * time.Millisecond), " 2s ": jobs.AutoDuration(2 * time.Second)} {
		c, proxies, err := config.LoadWorker(config.Environment{"GOFER_FIRST_BYTE_TIMEOUT": written})
		if err != nil {
			t.Errorf("GOFER_FIRST_BYTE_TIMEOUT=%s: %v", written, err)
			continue
		}
		if got := c.Daemon(proxies).FirstByteTimeout; got != want {
			t.Errorf("GOFER_FIRST_BYTE_TIMEOUT=%s is %s, want %s", written, got, want)
		}
	}
}

func TestHedgesAreOffUntilTheyAreAskedFor(t *testing.T) {
	for written, want := range map[string]jobs.AutoDuration{"": jobs.Off, "auto": jobs.Auto, "0.2": jobs.AutoDuration(200 * time.Millisecond)} {
		c, err := config.Load(config.Environment{"GOFER_RETRY_HEDGE": written})
		if err != nil {
			t.Errorf("GOFER_RETRY_HEDGE=%s: %v", written, err)
		} else if got := c.Policy().Hedge; got != want {
			t.Errorf("GOFER_RETRY_HEDGE=%s is %s, want %s", written, got, want)
		}
	}
}

func TestNumbersThatPeopleDoNotMeanAreRefused(t *testing.T) {
	for _, set := range []string{
		"CONCURRENCY=010", "CONCURRENCY=0x40", "CONCURRENCY=1_0", "CONCURRENCY=1e1", "MAX_BODY_BYTES=99999999999999999999", "REPLICAS=3.0", "HOST_RATE=0x1p-1",
		"HOST_RATE=NaN", "HOST_RATE=-1", "HOST_RATE=1e400", "RETRY_MULTIPLIER=Inf", "RETRY_BUDGET=-0.1", "RETRY_STATUS_CODES=0429", "RETRY_STATUS_CODES=429;503",
		"RETRY_STATUS_CODES=,", "RETRY_STATUS_CODES=99999999999999999999", "QUEUES=a:01", "QUEUES=a:1e2", "QUEUES=,", "QUEUES=a,b,a", "ATTEMPT_TIMEOUT=-5s", "ATTEMPT_TIMEOUT=0x1p4",
		"MAX_WAIT=9223372036.854776", "MAX_WAIT=-1", "MAX_WAIT=NaN", "RETRY_TIMEOUT=-1ns", "RESULTS_MAX_BYTES=-1", "DRAIN_TIMEOUT=1e-3", "RESULTS_MAX_AGE=2562047h",
		"BREAKER_WINDOW=1e300", "JOBS_MAX_MSGS=-1", "RETRY_BASE_DELAY=Infinity",
		"FIRST_BYTE_TIMEOUT=0", "FIRST_BYTE_TIMEOUT=-1s", "FIRST_BYTE_TIMEOUT=Auto", "FIRST_BYTE_TIMEOUT=soon", "RETRY_HEDGE=0", "RETRY_HEDGE=on",
		"STALL_TIMEOUT=0", "STALL_TIMEOUT=-1ns", "STALL_TIMEOUT=11m", "STALL_TIMEOUT=Off", "USER_AGENT=a\nb",
	} {
		name, value, _ := strings.Cut("GOFER_"+set, "=")
		if got := reasonsOf(t, config.Environment{name: value}); len(got) != 1 || !strings.HasPrefix(got[0], name+": ") {
			t.Errorf("%s: %q; want %s alone", set, got, name)
		}
	}
}

func TestSecretsInFilesAreReadAsEditorsWriteThem(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"mark": {"\ufefftoken\r\n", "token"}, "utf16": {"\xff\xfet\x00", "UTF-16"}, "latin1": {"tok\xe9n", "not UTF-8"},
	} {
		got, err := config.Load(config.Environment{"GOFER_ADMIN_TOKEN": " ", "GOFER_ADMIN_TOKEN_FILE": writeFile(t, name, c.text)})
		if got.AdminToken != c.want && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: token %q, %v; want %q", name, got.AdminToken, err, c.want)
		}
	}
}

// TestHashIsOfWhatAFleetShares: values that differ by machine, and secrets, do not change it.
func TestHashIsOfWhatAFleetShares(t *testing.T) {
	hash := func(env config.Environment) string {
		c, err := config.Load(env)
		if err != nil {
			t.Fatal(err)
		}
		return c.Hash()
	}
	own := hash(nil)
	for name, c := range map[string]struct {
		env  config.Environment
		same bool
	}{
		"name and addresses": {config.Environment{"GOFER_WORKER_NAME": "w1", "GOFER_HTTP_ADDR": "127.0.0.1:1", "GOFER_DATA_DIR": "/x"}, true},
		"server":             {config.Environment{"GOFER_NATS_URL": "nats://127.0.0.1:4222"}, true},
		"concurrency":        {config.Environment{"GOFER_CONCURRENCY": "3"}, false},
		"a secret":           {config.Environment{"GOFER_ADMIN_TOKEN": "x"}, false},
	} {
		if got := hash(c.env); (got == own) != c.same {
			t.Errorf("%s: hash %s, without %s; want the same: %t", name, got, own, c.same)
		}
	}
	if a, b := hash(config.Environment{"GOFER_ADMIN_TOKEN": "x"}), hash(config.Environment{"GOFER_ADMIN_TOKEN": "y"}); a != b {
		t.Error("the hash depends on a secret, which could be guessed from it")
	}
}

func TestBanStatusesMayBeNone(t *testing.T) {
	for _, c := range []struct {
		env  config.Environment
		want []int
		show string
	}{
		{config.Environment{}, []int{403}, "403"},
		{config.Environment{"GOFER_BAN_STATUS_CODES": ""}, []int{}, ""},
		{config.Environment{"GOFER_BAN_STATUS_CODES": " "}, []int{}, ""},
		{config.Environment{"GOFER_BAN_STATUS_CODES": "403, 999"}, []int{403, 999}, "403, 999"},
	} {
		got, err := config.Load(c.env)
		if err != nil || got.Policy().BanStatusCodes == nil || !slices.Equal(got.Policy().BanStatusCodes, c.want) {
			t.Errorf("%q: %v, %v; want %v, and not nil", c.env, got.Policy().BanStatusCodes, err, c.want)
		}
		for _, v := range config.Variables() {
			if v.Name != "GOFER_BAN_STATUS_CODES" {
				continue
			}
			if value, source := got.Show(v); value != c.show || (source == "default") != (len(c.env) == 0) {
				t.Errorf("%q: shown as %q from %s, want %q", c.env, value, source, c.show)
			}
		}
	}
	if _, err := config.Load(config.Environment{"GOFER_BAN_STATUS_CODES": "1000"}); err == nil || !strings.Contains(err.Error(), "GOFER_BAN_STATUS_CODES") {
		t.Errorf("1000: %v, want that the variable is named", err)
	}
	t.Setenv("GOFER_BAN_STATUS_CODES", "")
	env, err := config.OfProcess()
	if value, set := env["GOFER_BAN_STATUS_CODES"]; err != nil || !set || value != "" {
		t.Errorf("of the process: %q, set %v, %v; want that it is set and empty", value, set, err)
	}
}

// TestReasonsComeInTheSameOrder: an owner compares what two workers say.
func TestReasonsComeInTheSameOrder(t *testing.T) {
	env := config.Environment{"GOFER_BREAKER_WINDOW": "0", "GOFER_BREAKER_TIMEOUT": "0", "GOFER_BREAKER_MAX_TIMEOUT": "0", "GOFER_QUEUE": "a", "GOFER_NATS": "b"}
	want := reasonsOf(t, env)
	for range 20 {
		if got := reasonsOf(t, env); !slices.Equal(got, want) {
			t.Fatalf("got %q, before %q", got, want)
		}
	}
}
