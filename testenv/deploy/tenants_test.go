package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
)

// TestTenantsDoNotMeet makes a second tenant by the command of the README. Both have jobs and results of the same names.
func TestTenantsDoNotMeet(t *testing.T) {
	passwords(t, "worker", "admin", "publisher", "reader")
	for _, user := range []string{"worker", "admin", "publisher", "reader"} {
		t.Setenv("ACME_"+strings.ToUpper(user)+"_PASSWORD", "acme")
	}
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "server.conf"), []byte(withExamples(t)), 0o600))
	sed := exec.CommandContext(t.Context(), "sh", "-ec", command(t, "nats/README.md", "ACME_"))
	sed.Dir = dir
	if out, err := sed.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "tenants.conf"))
	must(t, err)
	srv := start(t, dir, string(text))
	acme := func(user string) role { return role{user, "acme-" + user, "acme"} }
	ours, theirs := byName("worker").client(t, srv), acme("worker").client(t, srv)
	must(t, ours.Ensure(soon(t), bus.Settings{}))
	must(t, theirs.Ensure(soon(t), bus.Settings{}))
	_, err = ours.StoreResult(soon(t), success("page"))
	must(t, err)
	for who, publisher := range map[string]role{"we": byName("publisher"), "acme": acme("publisher")} {
		b := publisher.client(t, srv)
		if _, err := client.New(b).Submit(soon(t), jobs.Job{ID: "same", URL: "http://a.test/"}); err != nil {
			t.Errorf("%s: submit: %v", who, err)
		}
		if _, err := b.Result(soon(t), "default", "page"); (err == nil) != (who == "we") {
			t.Errorf("%s: got %v for the result that we have stored", who, err)
		}
	}
	for _, c := range []*bus.Client{ours, theirs} {
		stream, err := c.JetStream().Stream(soon(t), "GOFER_JOBS")
		must(t, err)
		if got := stream.CachedInfo().State.Msgs; got != 1 {
			t.Errorf("got %d jobs of a tenant, want its own one", got)
		}
	}
}
