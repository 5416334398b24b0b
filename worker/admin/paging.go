package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// page selects a part of a list: at most limit rows from offset on, of the rows that contain search, which is in lower case.
type page struct {
	limit, offset int
	search        string
}

// pageOf reads the parameters limit, offset and search.
func pageOf(r *http.Request) (p page, err error) {
	if p.limit, err = limitOf(r); err != nil {
		return p, err
	}
	query := r.URL.Query()
	if written := query.Get("offset"); written != "" {
		if p.offset, err = strconv.Atoi(written); err != nil || p.offset < 0 {
			return p, badRequest("offset: " + strconv.Quote(clip(written)) + " is not a number from 0")
		}
		p.offset = min(p.offset, 1<<30) // so that offset + limit does not overflow
	}
	p.search = strings.ToLower(query.Get("search"))
	return p, nil
}

const (
	defaultLimit = 100
	// maxLimit bounds the memory and the size of one answer.
	maxLimit = 1000
)

// limitOf reads the parameter limit; defaultLimit without it. Its error, 400, means that the value is no number from 1 to
// maxLimit.
func limitOf(r *http.Request) (int, error) {
	if !r.URL.Query().Has("limit") {
		return defaultLimit, nil
	}
	// An empty value is an error, not the default.
	written := r.URL.Query().Get("limit")
	n, err := strconv.Atoi(written)
	if err != nil || n < 1 || n > maxLimit {
		return 0, badRequest("limit: " + strconv.Quote(clip(written)) + " is not a number from 1 to " + strconv.Itoa(maxLimit))
	}
	return n, nil
}

// rowsOf returns the rows of a list that a page selects; none if the offset is beyond the end.
func rowsOf[T any](p page, list []T) []T {
	total := len(list)
	from := min(p.offset, total)
	return list[from : from+min(p.limit, total-from)]
}

// sites answers with a page of the sites that this worker remembers, the resting ones first.
func (a *admin) sites(w http.ResponseWriter, r *http.Request) error {
	p, err := pageOf(r)
	if err != nil {
		return err
	}
	if a.Sites == nil {
		return notHere("sites are not known here")
	}
	list, total := a.Sites(p.offset + p.limit)
	if p.search != "" {
		list, _ = a.Sites(total)
		list = slices.DeleteFunc(slices.Clone(list), func(s Site) bool { return !strings.Contains(s.Site, p.search) })
		total = len(list)
	}
	return reply(w, map[string]any{"total": total, "sites": rowsOf(p, list)})
}

// workers answers with a page of the workers that respond within changeTimeout, in the order of the page.
func (a *admin) workers(w http.ResponseWriter, r *http.Request) error {
	p, err := pageOf(r)
	if err != nil {
		return err
	}
	if a.Operator.Workers == nil {
		return notHere("the workers are not listed here")
	}
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
	defer cancel()
	all, missing, err := a.Operator.Workers(ctx)
	if err != nil {
		return err
	}
	list, err := rankWorkers(all)
	if err != nil {
		return err
	}
	if p.search != "" {
		list = slices.DeleteFunc(list, func(w rankedWorker) bool { return !strings.Contains(strings.ToLower(w.name.Worker), p.search) })
	}
	rows := []json.RawMessage{}
	for _, w := range rowsOf(p, list) {
		rows = append(rows, w.json)
	}
	return reply(w, map[string]any{"total": len(list), "workers": rows, "missing": append([]string{}, missing...)})
}

// liveWorkers answers with a page of the workers of the stream, in the form and order of the stream. The route of workers leaves
// out workers that do not answer, so its pages do not continue the first page of the stream.
func (a *admin) liveWorkers(w http.ResponseWriter, r *http.Request) error {
	p, err := pageOf(r)
	if err != nil {
		return err
	}
	ready, checks := a.ready()
	list := a.workersNow(r.Context(), ready, checks).rows()
	if p.search != "" {
		list = slices.DeleteFunc(list, func(w Worker) bool { return !strings.Contains(strings.ToLower(w.Worker), p.search) })
	}
	return reply(w, map[string]any{"total": len(list), "workers": rowsOf(p, list)})
}

// rankedWorker is a worker in the form that Operator returns, with the values that order it.
type rankedWorker struct {
	json json.RawMessage
	name Worker
}

// rankWorkers orders the workers as the page does. It converts them by JSON, because this package may not import their type.
func rankWorkers(all any) ([]rankedWorker, error) {
	data, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	var rows []json.RawMessage
	if err := json.Unmarshal(data, &rows); err != nil {
		return nil, err
	}
	list := make([]rankedWorker, len(rows))
	for i, row := range rows {
		var is struct {
			Worker          string
			Ready, Draining bool
		}
		if err := json.Unmarshal(row, &is); err != nil {
			return nil, err
		}
		list[i] = rankedWorker{row, Worker{Worker: is.Worker, Ready: is.Ready, Draining: is.Draining}}
	}
	slices.SortStableFunc(list, func(a, b rankedWorker) int {
		return cmp.Or(rank(a.name)-rank(b.name), cmp.Compare(a.name.Worker, b.name.Worker))
	})
	return list, nil
}
