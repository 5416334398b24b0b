package main

import (
	"strings"
	"testing"
)

func TestMisspeltFlagsAndVerbsNameTheOneThatWasMeant(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"submit --wiat http://a.test/": "did you mean --wait?", "submit --quue x http://a.test/": "did you mean --queue?", "worker --concurrency 5": "see gofer config usage",
		"status": "did you mean doctor?", "stats": "did you mean rollups?", "sumbit": "did you mean submit?",
		"submit -q x http://a.test/": "did you mean --queue?", "submit -f x": "did you mean --fail or --file?", "help sumbit": "did you mean submit?",
		"submit --retries 3 http://a.test/": "did you mean --attempts, which counts the first one, too?", "submit --max_attempts 3 http://a.test/": "did you mean --attempts?",
		"submit -x http://p.test:1 http://a.test/": "did you mean --proxy ID, a proxy of the pool", "submit -o x http://a.test/": "did you mean --output DIR?",
		"submit --data-raw x http://a.test/": "did you mean -d DATA?", "submit -A x http://a.test/": "did you mean -H 'User-Agent: …'?", "cancel -f a": "did you mean --yes?",
		"results --follow": "without an ID it follows by itself", "events --since 1h": "--all begins with the events that are kept", "cancel --all": "name jobs by --queue",
		"submit -L http://a.test/": "redirects are followed",
		"cancel":                   "name IDs, or jobs by a flag", "dead rm 1": "did you mean purge?", "dead retry 1": "did you mean replay?", "proxies remove a": "did you mean rm?", "policy get": "did you mean show?",
		"rm a":  "did you mean cancel?",
		"retry": "did you mean dead replay?", "completion tcsh": `no verb "tcsh"`, "jobs ls --state failed": "gofer results lists the jobs that have ended",
	} {
		code, _, errOut := gofer(t, "", strings.Fields(args)...)
		if code != exitUsage || !strings.Contains(errOut, want) {
			t.Errorf("gofer %s: exit %d, %q; want %d and %q", args, code, errOut, exitUsage, want)
		}
	}
	if _, _, errOut := gofer(t, "", "submit", "--nothing-like-it"); strings.Contains(errOut, "did you mean") {
		t.Errorf("a flag that is near to none: %q", errOut)
	}
}

func TestHelpListsVerbsInGroups(t *testing.T) {
	t.Parallel()
	_, out, _ := gofer(t, "", "--help")
	at := 0
	for _, title := range []string{"Jobs:", "Fleet:", "Proxies:", "Run and set up:"} {
		next := strings.Index(out[at:], "\n"+title+"\n")
		if next < 0 {
			t.Fatalf("help has no group %q after the one before:\n%s", title, out)
		}
		at += next
	}
	if strings.Contains(out, "Additional Commands") {
		t.Errorf("a verb is in no group:\n%s", out)
	}
}

func TestNamesOfTheFleetAreCompleted(t *testing.T) {
	w := newWorld(t, nil)
	if code, _, errOut := gofer(t, "", "setup"); code != exitOK {
		t.Fatal(errOut)
	}
	w.publish("waits", job("/", nil))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"pause", "def"}, "default\n"}, {[]string{"submit", "--queue", ""}, "default\n"}, {[]string{"job", "default/wa"}, "default/waits\n"}, {[]string{"cancel", ""}, "default/waits\n"},
		{[]string{"proxies", "strategy", "le"}, "least_used\n"}, {[]string{"jobs", "ls", "--state", "no_"}, "no_proxy\n"}, {[]string{"drain", ""}, ""},
	} {
		code, out, errOut := gofer(t, "", append([]string{"__complete"}, c.args...)...)
		if code != exitOK || !strings.HasPrefix(out, c.want) || c.want == "" && !strings.HasPrefix(out, ":") {
			t.Errorf("completion of %q: exit %d, %q, %q; want %q", c.args, code, out, errOut, c.want)
		}
	}
}

func TestEmptyListsSayThatTheyAre(t *testing.T) {
	newWorld(t, nil)
	if code, _, errOut := gofer(t, "", "setup"); code != exitOK {
		t.Fatal(errOut)
	}
	for args, want := range map[string]string{"dead ls": "No dead letters.\n", "jobs ls": "No jobs.\n"} {
		code, out, errOut := gofer(t, "", strings.Fields(args)...)
		if code != exitOK || out != "" || errOut != want {
			t.Errorf("gofer %s: exit %d, %q on standard output, %q; want %q beside it", args, code, out, errOut, want)
		}
	}
}

func TestAMessageSaysWhatWasMeant(t *testing.T) {
	t.Parallel()
	newWorld(t, nil)
	gofer(t, "", "setup")
	for args, want := range map[string]string{
		"submit shop.test":                            `URL 1: "shop.test" has no scheme, did you mean http://shop.test or https://shop.test?`,
		"submit http//shop.test/":                     `URL 1: "http//shop.test/" is no URL, did you mean http://shop.test/?`,
		"submit htp://shop.test/":                     `URL 1: "htp://shop.test/" is no URL, did you mean http://shop.test/?`,
		"submit //shop.test/page":                     "did you mean http://shop.test/page or https://shop.test/page?",
		"submit htp://user:secret@shop.test":          "did you mean http:// in place of htp://?",
		"submit user:secret@shop.test":                "not an absolute http or https URL",
		"submit --at tomorrow http://shop.test/":      `--at: "tomorrow" is no time such as`,
		"submit --deadline friday http://shop.test/":  `--deadline: "friday" is no time such as`,
		"deny add http://x.test/":                     "did you mean x.test?",
		"proxies add 127.0.0.1:1":                     "gofer proxies import - takes lines such as host:port",
		"proxies add http://127.0.0.1:1 wieght=3":     "did you mean weight?",
		"proxies add http://127.0.0.1:1 secretword=3": "a key is none of",
		"pause nope":  "gofer queues lists the queues",
		"resume nope": "gofer queues lists the queues",
		"job nope":    "no queue has it, and no result of it is kept",
		"dead show 9": "gofer dead ls lists those that are kept",
	} {
		code, _, errOut := gofer(t, "", strings.Fields(args)...)
		if code == exitOK || !strings.Contains(errOut, want) || strings.Contains(errOut, "secret") {
			t.Errorf("gofer %s: exit %d, %q; want %q", args, code, errOut, want)
		}
	}
	_, out, _ := gofer(t, "", "submit", "--print", "--at", "2026-12-01 10:00", "http://shop.test/")
	if !strings.Contains(out, `"not_before":"2026-12-01T`) {
		t.Errorf("a time of this machine's zone: got %s", out)
	}
}
