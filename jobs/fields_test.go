package jobs_test

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
)

// With -update, the tests that compare a document with the program write the document.
var update = flag.Bool("update", false, "write the documents that the tests compare")

// tables are the tables of README.md by the name in their markers.
func tables() map[string][]jobs.Field {
	return map[string][]jobs.Field{
		"job": jobs.JobFields(), "proxy": jobs.ProxyFields(), "ban": jobs.BanFields(), "policy": jobs.PolicyFields(),
	}
}

// written are the tables of what gofer writes in JSON.
func written() map[string][]jobs.Field {
	return map[string][]jobs.Field{
		"retry-event": jobs.RetryEventFields(), "breaker-event": jobs.BreakerEventFields(), "pool-event": jobs.PoolEventFields(),
		"site-event": jobs.SiteEventFields(), "duplicate-event": jobs.DuplicateEventFields(), "attempt": jobs.AttemptFields(),
	}
}

func TestEveryMemberOfTheJSONIsDescribedInOrder(t *testing.T) {
	for name, document := range map[string]any{
		"job": jobs.Job{}, "proxy": jobs.ProxyChoice{}, "ban": jobs.Ban{}, "policy": jobs.Policy{}, "override": jobs.Override{},
		"retry-event": jobs.RetryEvent{}, "breaker-event": jobs.BreakerEvent{}, "pool-event": jobs.PoolEvent{}, "site-event": jobs.SiteEvent{},
		"duplicate-event": jobs.DuplicateEvent{}, "attempt": jobs.Attempt{},
	} {
		var members, described []string
		for field := range reflect.TypeOf(document).Fields() {
			if tag, _, _ := strings.Cut(field.Tag.Get("json"), ","); tag != "" && tag != "-" {
				members = append(members, tag)
			}
		}
		fields := slices.Concat(tables()[name], written()[name])
		if name == "override" {
			fields = jobs.PolicyFields()
			fields = fields[:len(fields)-1] // a job's ban replaces the statuses of the fleet
		}
		for _, f := range fields {
			described = append(described, f.Name)
		}
		if !slices.Equal(described, members) {
			t.Errorf("%s: described %v, want %v", name, described, members)
		}
	}
}

func TestTheTablesOfTheREADMEAreThoseOfTheProgram(t *testing.T) {
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	parts := map[string]string{"result": headerTable(jobs.ResultFields())}
	for name, fields := range tables() {
		parts[name] = markdown(fields)
	}
	for name, table := range parts {
		part := regexp.MustCompile(fmt.Sprintf("(?s)<!-- fields: %s -->\n.*?<!-- end -->", name))
		if !part.MatchString(text) {
			t.Errorf("README.md has no table between <!-- fields: %s --> and <!-- end -->", name)
			continue
		}
		text = part.ReplaceAllLiteralString(text, fmt.Sprintf("<!-- fields: %s -->\n%s<!-- end -->", name, table))
	}
	switch {
	case text == string(data):
	case *update:
		if err := os.WriteFile("README.md", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Error("a table of README.md differs from the program: run 'go test ./jobs -update'")
	}
}

func markdown(fields []jobs.Field) string {
	var b strings.Builder
	b.WriteString("| field | type | default | bounds | meaning |\n|---|---|---|---|---|\n")
	for _, f := range fields {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", f.Name, f.Type, f.Default, f.Bounds, f.Meaning)
	}
	return b.String()
}

func headerTable(fields []jobs.Field) string {
	var b strings.Builder
	b.WriteString("| header | value |\n|---|---|\n")
	for _, f := range fields {
		value := f.Meaning
		if f.Default != "" {
			value += "; " + f.Default
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", f.Name, value)
	}
	b.WriteString("| `Gofer-Meta-<key>` | each entry of `meta` |\n| `Http-<Name>` | each response header in canonical case; repeated headers are repeated |\n")
	return b.String()
}

func TestTheJobsOfTheREADMEAreValid(t *testing.T) {
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```json\n(\\{\"url\".*?)\n```").FindAllSubmatch(data, -1)
	if len(found) < 2 {
		t.Fatalf("README.md has %d jobs, want at least 2", len(found))
	}
	for _, example := range found {
		if _, err := jobs.Decode(jobs.DefaultQueue, "j1", example[1]); err != nil {
			t.Errorf("%s\n%v", example[1], err)
		}
	}
}
