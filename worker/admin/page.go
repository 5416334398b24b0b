package admin

import (
	"embed"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/gofer-mq/gofer/jobs"
)

// files has the page, its parts and the licence of the chart library. They are served from memory, so the worker needs no files.
//
//go:embed page openapi.json
var files embed.FS

// pagePolicy is the content security policy of the page. The page may load its own parts and send requests to its own worker, and
// nothing else. Inline scripts do not run, so a script in a job's URL or error would not run even if it were not escaped.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// pageRoutes are the routes of the page and of its parts.
func (a *admin) pageRoutes() []route {
	return []route{
		{http.MethodGet, "/{$}", reader, a.page},
		{http.MethodGet, "/page/{name}", reader, a.page},
	}
}

// page answers with a file of the page. The files are embedded in the program. The name is one path segment, and
// embed.FS refuses "..", so no other file can be named.
func (a *admin) page(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	if name == "" {
		name = "index.html"
	}
	return sendFile(w, path.Join("page", name))
}

func (a *admin) openAPI(w http.ResponseWriter, _ *http.Request) error {
	return sendFile(w, "openapi.json")
}

// schema answers with the JSON Schema of a message, to which the description of the API refers.
func (a *admin) schema(w http.ResponseWriter, r *http.Request) error {
	name, isJSON := strings.CutSuffix(r.PathValue("name"), ".json")
	data := jobs.Schema(name)
	if data == nil || !isJSON {
		known := strings.Join(jobs.SchemaNames(), ", ")
		return failure{status: http.StatusNotFound, code: "not_found", message: "there is no such schema; put .json after one of " + known}
	}
	w.Header().Set("Content-Type", "application/schema+json")
	_, _ = w.Write(data) // an error means that the client went away
	return nil
}

// sendFile answers with an embedded file, or 404. setHeaders forbids caching, so
// browsers load the files of a new version at once.
func sendFile(w http.ResponseWriter, name string) error {
	data, err := files.ReadFile(name)
	if err != nil {
		return failure{status: http.StatusNotFound, code: "not_found", message: fmt.Sprintf("there is no file %q", clip(strings.TrimPrefix(name, "page/")))}
	}
	w.Header().Set("Content-Type", contentTypeOf(name))
	w.Header().Set("Content-Security-Policy", pagePolicy)
	_, _ = w.Write(data) // an error means that the client went away
	return nil
}

// contentTypeOf returns the type of a file by its extension. It does not use the machine's own table: on some machines a
// script has the type text/plain, and with nosniff a browser does not run such a script.
func contentTypeOf(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".json":
		return "application/json"
	case ".svg":
		return "image/svg+xml"
	}
	return "text/plain; charset=utf-8"
}
