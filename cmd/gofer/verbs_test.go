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
