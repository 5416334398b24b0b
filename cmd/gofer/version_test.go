package main

import (
	"runtime/debug"
	"testing"
)

func TestPlainBuildHasAVersion(t *testing.T) {
	t.Parallel()
	vcs := func(revision, modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: revision}, {Key: "vcs.modified", Value: modified}}
	}
	for want, info := range map[string]debug.BuildInfo{
		"v1.2.3":                    {Main: debug.Module{Version: "v1.2.3"}, Settings: vcs("aaaa", "true")},
		"v0.0.0-2026-475fd6b":       {Main: debug.Module{Version: "v0.0.0-2026-475fd6b"}},
		"v0.0.0-475fd6b81e33":       {Main: debug.Module{Version: "(devel)"}, Settings: vcs("475fd6b81e339745b1432b80f31c303ee1bbb310", "false")},
		"v0.0.0-475fd6b81e33+dirty": {Settings: vcs("475fd6b81e339745b1432b80f31c303ee1bbb310", "true")},
		noVersion:                   {Main: debug.Module{Version: "(devel)"}},
	} {
		if got := versionOf(&info); got != want {
			t.Errorf("version of %+v = %s, want %s", info, got, want)
		}
	}
}
