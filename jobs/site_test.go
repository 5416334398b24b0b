package jobs_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

func TestASiteEventIsWhatTheContractShows(t *testing.T) {
	at := time.Date(2030, 1, 2, 15, 4, 5, 0, time.UTC)
	next := at.Add(time.Minute)
	got, err := json.Marshal(jobs.SiteEvent{
		Site: "example.com", FromState: "up", ToState: "resting", Timestamp: at, Reason: "timeout", NextTestTime: &next, Worker: "host-7f3a",
	})
	const want = `{"site":"example.com","from_state":"up","to_state":"resting","timestamp":"2030-01-02T15:04:05Z","reason":"timeout",` +
		`"next_test_time":"2030-01-02T15:05:05Z","worker":"host-7f3a"}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	if got := names.SiteEvent("example.com"); got != "gofer.events.site.a379a6f6eeafb9a5" {
		t.Errorf("got subject %s", got)
	}
}

func TestTheSubjectOfAWaitingJobNamesItsSiteQueueAndID(t *testing.T) {
	names, err := jobs.NewNames("")
	if err != nil {
		t.Fatal(err)
	}
	key := jobs.SiteKey("example.com")
	for subject, want := range map[string][3]string{
		names.SiteWait(key, "low", "a"):  {key, "low", "a"},
		names.ScheduledJob("low", "a"):   {"", "low", "a"},
		names.ScheduledJob("low", "a.b"): {"", "low", "a.b"},
		names.Job("SITE", "b.c.d"):       {"", "SITE", "b.c.d"},
	} {
		site, queue, id, ok := jobs.SplitWaiting(subject)
		if got := [3]string{site, queue, id}; got != want || !ok {
			t.Errorf("%s: got %v, %t; want %v", subject, got, ok, want)
		}
	}
	for _, subject := range []string{"_gofer.at.SITE", "_gofer.at.SITE." + key, "_gofer.at.SITE." + key + ".low", "_gofer.at.SITE." + key + "..a", "_gofer.at"} {
		if _, _, _, ok := jobs.SplitWaiting(subject); ok {
			t.Errorf("%s is taken for the subject of a waiting job", subject)
		}
	}
	for text, want := range map[string]bool{key: true, "A379A6F6EEAFB9A5": false, "a379": false, "*": false, "": false, "g379a6f6eeafb9a5": false} {
		if jobs.ValidSiteKey(text) != want {
			t.Errorf("%q: valid %t", text, !want)
		}
	}
}

func TestASiteHasOneSpelling(t *testing.T) {
	for url, want := range map[string]string{
		"http://Shop.Test./a": "shop.test", "https://shop.test:443": "shop.test", "http://shop.test:0080/": "shop.test", "http://shop.test.:8080/": "shop.test:8080",
		"http://shop.test:443/": "shop.test:443", "https://[2001:DB8::1]:8443/": "[2001:db8::1]:8443", "http://[2001:db8::1]/": "[2001:db8::1]", "http://127.1./": "127.0.0.1",
	} {
		u, err := jobs.ParseURL(url)
		if err != nil || u.Site() != want {
			t.Errorf("%s: got site %q, %v; want %q", url, u.Site(), err, want)
		}
		if names, err := jobs.SiteNames(u.Site()); err != nil || !slices.Contains(names, u.Site()) {
			t.Errorf("%s: its site is read as %q, %v", url, names, err)
		}
	}
}

func TestTheNameOfASiteIsReadInAnySpelling(t *testing.T) {
	for text, want := range map[string]string{
		"shop.test": "[shop.test]", "SHOP.test.": "[shop.test]", "shop.test:8080": "[shop.test:8080]", "shop.test.:08080": "[shop.test:8080]", "shop.test:": "[shop.test]",
		"shop.test:80": "[shop.test:80 shop.test]", "Shop.test.:443": "[shop.test:443 shop.test]", "[2001:DB8::1]:443": "[[2001:db8::1]:443 [2001:db8::1]]",
	} {
		names, err := jobs.SiteNames(text)
		if got := fmt.Sprint(names); got != want || err != nil {
			t.Errorf("%s: got %s, %v; want %s", text, got, err, want)
			continue
		}
		if again, err := jobs.SiteNames(names[0]); !slices.Equal(again, names) {
			t.Errorf("%s: its first name is read as %q, %v", text, again, err)
		}
	}
	for _, text := range []string{"", ".", "http://shop.test/", "shop.test/a", "shop test", "shop.test:0", "shop.test:65536", "shop.test:http", "a@shop.test", "::1", "a..test", "1.2.3.256"} {
		if names, err := jobs.SiteNames(text); err == nil {
			t.Errorf("%q is read as %q, want an error", text, names)
		}
	}
}
