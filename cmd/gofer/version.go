package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the build (-ldflags -X main.version=…); a plain go build takes it from the module or its checkout.
var version string

// noVersion is the version of a build from files without version control. It is a semantic version, because NATS shows no
// other one.
const noVersion = "v0.0.0-devel"

// buildVersion returns the version of this program: what the build has set, or what Go has recorded.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return noVersion
	}
	return versionOf(info)
}

// versionOf returns the module's version as go build records it: that of a release, or of a checkout. Without a record it
// is that of the revision, in the same form, or noVersion.
func versionOf(info *debug.BuildInfo) string {
	// A build by go install, or of a checkout with tags, has a version here; (devel) stands for none.
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	// Go records it only in a checkout with version control.
	revision := settings["vcs.revision"]
	if revision == "" {
		return noVersion
	}
	// The form is that of Go's pseudo-versions, which have twelve digits of the revision.
	v := "v0.0.0-" + revision[:min(len(revision), 12)]
	// go build marks a changed checkout in the same way.
	if settings["vcs.modified"] == "true" {
		v += "+dirty"
	}
	return v
}

// buildRevision returns the revision of the source if the program was built from a checkout, else "unknown". "-changed" means
// that the checkout had changes. The metric gofer_build_info shows it, so that two builds with one version can be told apart.
func buildRevision() string {
	revision, changed := "unknown", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				changed = "-changed"
			}
		}
	}
	return revision + changed
}

// versionCommand prints the version, that of Go, and the platform.
func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.printJSON(map[string]string{"version": buildVersion(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
			}
			return a.out.line("gofer %s %s %s/%s", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}
