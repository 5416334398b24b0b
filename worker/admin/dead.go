package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// letterFilter selects dead letters. The zero value selects none. A letter must fit all fields.
type letterFilter struct {
	Queue  string   `json:"queue"`
	Site   string   `json:"site"`
	Reason string   `json:"reason"` // the error code
	Seqs   []uint64 `json:"seqs"`
	All    bool     `json:"all"`

	sites []string // what Site stands for
}

// fits reports whether the filter selects a letter. Empty fields admit every letter.
func (f *letterFilter) fits(l Letter) bool {
	return (f.Queue == "" || l.Queue == f.Queue) && (f.Site == "" || slices.Contains(f.sites, l.Site)) && (f.Reason == "" || l.Error == f.Reason) &&
		(f.Seqs == nil || slices.Contains(f.Seqs, l.Seq))
}

// readLetterFilter reads the filter of a change. Its error, 400, means that the body selects no letter, because an empty object
// must not purge everything, or that it has all and another field.
func readLetterFilter(r *http.Request) (f letterFilter, err error) {
	if err := readBody(r, &f); err != nil {
		return f, err
	}
	if f.Site != "" {
		if f.sites, err = sitesOf(f.Site); err != nil {
			return f, err
		}
	}
	// Even an empty list of seqs is a restriction: a page with no selected letter must not purge everything.
	some := f.Queue != "" || f.Site != "" || f.Reason != "" || f.Seqs != nil
	if some == f.All {
		return f, badRequest(`name the letters by queue, site, reason or seqs, or write {"all": true}`)
	}
	return f, nil
}

// letterTime bounds reading all letters and acting on them. It is shorter than the server's WriteTimeout.
const letterTime = 25 * time.Second

// dead lists the oldest dead letters, or with group the groups of all letters, the largest first. The list is
// bounded by limit and needs no more than the first letters; groups need to read all of them.
func (a *admin) dead(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	// The key function is looked up before anything is read, so that a misspelt group costs nothing.
	by := r.URL.Query().Get("group")
	key, known := map[string]func(Letter) string{
		"reason": func(l Letter) string { return l.Error }, "site": func(l Letter) string { return l.Site }, "queue": func(l Letter) string { return l.Queue },
	}[by]
	switch {
	case by != "" && !known:
		return badRequest("group: " + strconv.Quote(clip(by)) + " is none of reason, site, queue")
	case a.Operator.Letters == nil:
		return notHere("dead letters are not listed here")
	}
	ctx, cancel := context.WithTimeout(r.Context(), letterTime)
	defer cancel()
	if by != "" {
		groups, err := a.groupLetters(ctx, key)
		if err != nil {
			return err
		}
		return reply(w, map[string]any{"groups": groups[:min(limit, len(groups))]})
	}
	var list []Letter
	err = a.Operator.Letters(ctx, func(l Letter) error {
		// errEnough ends the read at once. The client does not get this error.
		if len(list) == limit {
			return errEnough
		}
		list = append(list, l)
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	return reply(w, map[string]any{"letters": orEmpty(list)})
}

// errEnough ends a read of letters after the last wanted one.
var errEnough = errors.New("enough")

// group has the number and the times of the dead letters with one key.
type group struct {
	Key    string    `json:"key"`
	Count  int       `json:"count"`
	Oldest time.Time `json:"oldest"`
	Newest time.Time `json:"newest"`
}

// maxGroups bounds the groups, because publishers choose how many sites there are. The letters of further groups share the key
// "(other)".
const maxGroups = 10_000

// groupLetters reads all letters and groups them by key, the largest group first. At most maxGroups groups are kept in
// memory.
func (a *admin) groupLetters(ctx context.Context, key func(Letter) string) ([]*group, error) {
	groups, list := map[string]*group{}, []*group{}
	err := a.Operator.Letters(ctx, func(l Letter) error {
		name := key(l)
		if groups[name] == nil && len(groups) >= maxGroups {
			name = "(other)"
		}
		g := groups[name]
		// Letters come oldest first, so the first of a group is its oldest and each later one its newest so
		// far.
		if g == nil {
			g = &group{Key: name, Oldest: l.StoredAt}
			groups[name], list = g, append(list, g)
		}
		g.Count, g.Newest = g.Count+1, l.StoredAt
		return nil
	})
	// The sort is stable: groups of the same size stay in the order in which they began.
	slices.SortStableFunc(list, func(a, b *group) int { return cmp.Compare(b.Count, a.Count) })
	return list, err
}

// replayLetters publishes the jobs of dead letters again.
func (a *admin) replayLetters(w http.ResponseWriter, r *http.Request) error {
	return a.eachLetter(w, r, a.Operator.ReplayLetter, "replayed")
}

// purgeLetters removes dead letters. All of them, or all of a queue, are one request to the server, however many there are.
func (a *admin) purgeLetters(w http.ResponseWriter, r *http.Request) error {
	return a.eachLetter(w, r, a.Operator.PurgeLetter, "purged")
}

// eachLetter calls act for each letter that the body selects. Letters that arrive meanwhile are left alone. A letter that is
// gone is skipped. An error says how many letters are done.
func (a *admin) eachLetter(w http.ResponseWriter, r *http.Request, act func(context.Context, uint64) error, done string) error {
	f, err := readLetterFilter(r)
	if err != nil {
		return err
	}
	if act == nil || a.Operator.Letters == nil {
		return notHere("dead letters cannot be changed here")
	}
	ctx, cancel := context.WithTimeout(r.Context(), letterTime)
	defer cancel()
	count := uint64(0)
	if done == "purged" && f.isWholeQueue() && a.Operator.PurgeLetters != nil {
		count, err = a.Operator.PurgeLetters(ctx, f.Queue)
	} else {
		err = a.fitting(ctx, &f, func(seq uint64) error {
			err := act(ctx, seq)
			if err == nil {
				count++
			}
			if errors.Is(err, ErrUnknown) {
				return nil
			}
			return err
		})
	}
	if count > 0 {
		a.Log.Info("dead letters changed", "done", done, "count", count, "peer", r.RemoteAddr)
	}
	// Each letter is handled separately. An error does not undo the letters before it.
	if err != nil {
		return fmt.Errorf("%d dead letters are %s, and others may be left: send the request again: %w", count, done, err)
	}
	return reply(w, map[string]any{"count": count})
}

// isWholeQueue reports whether the filter selects all letters of a queue, or of all queues. An invalid name may be a
// wildcard, and the letters of other queues must stay.
func (f *letterFilter) isWholeQueue() bool {
	return f.Site == "" && f.Reason == "" && f.Seqs == nil && (f.Queue == "" || jobs.ValidQueue(f.Queue))
}

// fitting calls use for each letter that a filter selects, as soon as it is read: reading a million takes longer than a
// request may. Letters that are selected by sequence only are not read.
func (a *admin) fitting(ctx context.Context, f *letterFilter, use func(seq uint64) error) error {
	if f.Queue == "" && f.Site == "" && f.Reason == "" && f.Seqs != nil {
		for _, seq := range f.Seqs {
			if err := use(seq); err != nil {
				return err
			}
		}
		return nil
	}
	return a.Operator.Letters(ctx, func(l Letter) error {
		if !f.fits(l) {
			return nil
		}
		return use(l.Seq)
	})
}
