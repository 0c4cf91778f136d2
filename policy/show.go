package policy

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// Show writes the effective values as a table, one rule a line with its value and where it is set; for principals only what is
// set. Errors are w's.
func (p *Policy) Show(w io.Writer) error {
	from := p.path
	if from == "" {
		from = "no file, the defaults"
	}
	if _, err := fmt.Fprintf(w, "policy: %s\nhash: %s\n\n", from, p.Hash()); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(rule, value string) { fmt.Fprintf(t, "%s\t%s\t%s\n", rule, value, p.source(rule)) }
	for _, k := range limitKeys {
		row(k.name, k.show(&p.Limits))
	}
	row(keyIdleMode, string(p.idleMode()))
	row(keyApprovalTime, span(p.ApprovalTime()))
	row(keyTimeZone, p.zone().String())
	row(keyRequireGuard, fmt.Sprint(p.RequireGuard))
	row(keyUntracked, fmt.Sprint(p.CountUntracked))
	for _, k := range networkKeys {
		row(keyNetwork+"."+k.name, k.show(&p.Network))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Principals)) {
		limits := p.Principals[name]
		for _, k := range limitKeys {
			rule := keyPrincipals + "." + name + "." + k.name
			if _, set := p.sources[rule]; set || k.show(&limits) != none {
				row(rule, k.show(&limits))
			}
		}
	}
	return t.Flush()
}
