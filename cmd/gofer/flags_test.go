package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestNumbersOfFlagsAreDecimal(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"rollups --hours 010", "rollups --hours 0x10", "proxies check --parallel 1_0", "proxies check --parallel 99999999999", "proxies check --timeout 0x1p4"} {
		if code, _, errOut := gofer(t, "", strings.Fields(args)...); code != exitUsage || !strings.Contains(errOut, "not a ") {
			t.Errorf("gofer %s: exit %d, %s; want %d", args, code, errOut, exitUsage)
		}
	}
}

// TestNoFlagReadsNumbersByItself: pflag reads 010 as eight, and 0x10 as sixteen.
func TestNoFlagReadsNumbersByItself(t *testing.T) {
	t.Parallel()
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if kind := f.Value.Type(); strings.HasPrefix(kind, "int") || strings.HasPrefix(kind, "uint") || strings.HasPrefix(kind, "float") {
				t.Errorf("%s: flag --%s is of type %s: use wholeFlag", c.CommandPath(), f.Name, kind)
			}
		})
		for _, sub := range c.Commands() {
			look(sub)
		}
	}
	look((&app{out: &stream{to: nil}, err: &stream{to: nil}}).root())
}
