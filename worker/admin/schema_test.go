package admin_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
)

func TestEverySchemaIsServedAndListed(t *testing.T) {
	w := newWorker(t, nil)
	for _, name := range jobs.SchemaNames() {
		got := w.do(request("GET", "/api/v1/schemas/"+name+".json", ""))
		if got.Code != http.StatusOK || got.Header().Get("Content-Type") != "application/schema+json" || !bytes.Equal(got.Body.Bytes(), jobs.Schema(name)) {
			t.Errorf("%s: got %d %s %.60s", name, got.Code, got.Header().Get("Content-Type"), got.Body)
		}
	}
	for _, name := range []string{"job", "nothing.json", "..%2Fjob.json"} {
		if got := w.do(request("GET", "/api/v1/schemas/"+name, "")); got.Code != http.StatusNotFound {
			t.Errorf("%s: got %d, want 404", name, got.Code)
		}
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Parameters []struct{ Schema struct{ Enum []string } }
		}
	}
	if err := json.Unmarshal(w.do(request("GET", "/api/v1/openapi.json", "")).Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if listed := doc.Paths["/api/v1/schemas/{schema}.json"]["get"].Parameters[0].Schema.Enum; !slices.Equal(listed, jobs.SchemaNames()) {
		t.Errorf("the document lists %v, want %v", listed, jobs.SchemaNames())
	}
}
