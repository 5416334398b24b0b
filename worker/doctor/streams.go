package doctor

import (
	"context"
	"fmt"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// streams compares streams, buckets and consumers with the settings. Package bus judges whether a setting was edited (Inspect). A
// setting that workers obey is the owner's choice and no fault.
func (d *doctor) streams(ctx context.Context) []Finding {
	differences, err := d.Bus.Inspect(ctx, d.Settings)
	if err != nil {
		return []Finding{{"streams", false, d.Explain(err)}}
	}
	var list []Finding
	bad := false
	for _, difference := range differences {
		// OwnersChoice and Obeyed both have to hold: a value that setup would leave alone can still make
		// workers stop, and then it is a fault.
		if difference.Repair == bus.OwnersChoice && difference.Use == bus.Obeyed {
			list = append(list, Finding{"streams", true, fmt.Sprintf("%s: %s is %s, which workers keep to", difference.Name, difference.Field, difference.Have)})
			continue
		}
		bad = true
		detail := difference.String() + consequence(difference)
		if repair := d.Repair(difference); repair != "" {
			detail += " (" + repair + ")"
		}
		list = append(list, Finding{"streams", false, detail})
	}
	if !bad {
		list = append(list, Finding{"streams", true, "all there, and as this environment has them"})
	}
	return list
}

// consequence is what workers make of a setting, if it is more than a difference.
func consequence(d bus.Difference) string {
	switch d.Use {
	case bus.Unusable:
		if !d.Essential {
			return ", and workers do without it while it is so"
		}
		return ", and workers take no jobs while it is so"
	case bus.Lossy:
		return ", and the server may lose or refuse messages"
	// Both are listed, so that the linter reports a new use that has no text here.
	case bus.Obeyed, bus.Harmless:
	}
	return ""
}
