package admin

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Site is a site as the API shows it.
type Site struct {
	// Site is host and port, the default port left out.
	Site string `json:"site"`
	// State is "new", "up", "resting" or "testing".
	State string `json:"state"`
	// Reason is why it entered its state; empty if it is not known any more.
	Reason string `json:"reason"`
	// NextTestTime is null unless the site rests; LastStateChange until the first change.
	NextTestTime    *time.Time `json:"next_test_time"`
	LastStateChange *time.Time `json:"last_state_change"`
}

// sites answers with the sites that this worker remembers, the resting ones first.
func (a *admin) sites(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	if a.Sites == nil {
		return notHere("sites are not known here")
	}
	return reply(w, map[string]any{"sites": a.Sites(limit)})
}

// resetSite ends the rest of a site in every worker, and answers with this worker's view. A site that this worker does
// not remember is answered with 404.
func (a *admin) resetSite(w http.ResponseWriter, r *http.Request) error {
	if a.Site == nil || a.ResetSite == nil {
		return notHere("sites cannot be reset here")
	}
	name := strings.ToLower(r.PathValue("site"))
	if _, found := a.Site(name); !found {
		return failure{status: http.StatusNotFound, code: "unknown_site", message: "this worker remembers no site of this name"}
	}
	if err := change(r, func(ctx context.Context) error { return a.ResetSite(ctx, name) }); err != nil {
		return fmt.Errorf("reset site: %w", err)
	}
	site, _ := a.Site(name)
	a.Log.Info("site reset", "site", name, "peer", r.RemoteAddr)
	return reply(w, site)
}
