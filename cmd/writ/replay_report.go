// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/collector/query"
)

// errNothingReplayed says that no decision could be made again.
var errNothingReplayed = errors.New("none of the decisions could be made again")

// finish writes the report, and says by its error what came of it.
func (r *replaying) finish(w io.Writer, form output) error {
	r.report.Changes = append(r.report.Changes, r.changed()...)
	write := r.writeText
	if form == outputJSON {
		write = r.writeJSON
	}
	if err := write(w); err != nil {
		return err
	}
	done := r.report.Recomputed + r.report.Witnessed + r.report.Unchanged
	switch {
	case r.report.Differs+r.report.Changed > 0:
		return errNo
	case done == 0 && r.report.Decisions > 0:
		return errNothingReplayed
	default:
		return nil
	}
}

// changed returns the rows of the table of what is decided otherwise, the most first.
func (r *replaying) changed() []replayChange {
	var rows []replayChange
	for change, count := range r.changes {
		change.Count = count
		rows = append(rows, change)
	}
	slices.SortFunc(rows, func(a, b replayChange) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Tool, b.Tool), cmp.Compare(a.Roles, b.Roles),
			cmp.Compare(a.Before, b.Before), cmp.Compare(a.After, b.After), cmp.Compare(a.Check, b.Check))
	})
	return rows
}

// writeJUnit writes a case for each tool, roles and result: what changed or differs has
// failed, and what cannot be decided again is skipped.
func (r *replaying) writeJUnit(w io.Writer) error {
	suite := bundles.JUnitSuite{Name: "replay under " + r.report.Bundle}
	for _, c := range r.changed() {
		suite.Cases = append(suite.Cases, bundles.JUnitCase{
			Class: c.Tool, Name: fmt.Sprintf("%d decisions for %s: %s", c.Count, rolesText(c.Roles), c.Check),
			Failure: c.Before + " became " + c.After,
		})
	}
	alike := slices.SortedFunc(maps.Keys(r.alike), func(a, b replayAlike) int {
		return cmp.Or(cmp.Compare(a.tool, b.tool), cmp.Compare(a.roles, b.roles), cmp.Compare(a.result, b.result), cmp.Compare(a.why, b.why))
	})
	for _, kind := range alike {
		suite.Cases = append(suite.Cases, bundles.JUnitCase{
			Class: kind.tool, Name: fmt.Sprintf("%d decisions for %s: %s", r.alike[kind], rolesText(kind.roles), kind.result), Skipped: kind.why,
		})
	}
	return bundles.WriteJUnit(w, []bundles.JUnitSuite{suite})
}

func rolesText(roles string) string {
	if roles == "" {
		return "nobody's role"
	}
	return roles
}

func (r *replaying) writeJSON(w io.Writer) error {
	text, err := json.MarshalIndent(&r.report, "", "  ")
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", query.PrintableJSON(text))
	return err
}

func (r *replaying) writeText(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "bundle\t%s\n", r.report.Bundle)
	for _, row := range []struct {
		name  string
		count int
	}{
		{"decisions", r.report.Decisions},
		{"recomputed", r.report.Recomputed},
		{"witnessed", r.report.Witnessed},
		{"differs", r.report.Differs},
		{"unchanged", r.report.Unchanged},
		{"changed", r.report.Changed},
	} {
		fmt.Fprintf(table, "%s\t%d\n", row.name, row.count)
	}
	for _, why := range slices.Sorted(maps.Keys(r.report.NotReplayable)) {
		fmt.Fprintf(table, "not_replayable\t%d  %s\n", r.report.NotReplayable[why], query.Printable(why))
	}
	if len(r.report.Changes) > 0 {
		fmt.Fprint(table, "\nCOUNT\tTOOL\tROLES\tBEFORE\tAFTER\tCHECK\n")
	}
	for _, c := range r.report.Changes {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\n", c.Count, query.Printable(c.Tool), query.Printable(c.Roles), c.Before, c.After, query.Printable(c.Check))
	}
	if len(r.report.Named) > 0 {
		fmt.Fprint(table, "\nDECISION\tRECORD\tBEFORE\tAFTER\n")
	}
	for _, one := range r.report.Named {
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", one.Decision, one.Index, one.Before, one.After)
	}
	return table.Flush()
}
