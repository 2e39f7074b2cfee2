// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/agent/replay"
	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/ledger/originals"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func newReplay() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Decide recorded calls again",
		Long: `Replay decides every recorded call again over the facts of its record, and says what
came of it:

  recomputed      under the bundle that decided: the same decision, to the byte
  witnessed       the same, where some of its expressions read a sensitive argument, which
                  no record holds: how they came out is recorded
  differs         under the bundle that decided: another decision; the record or this
                  program is not what it was
  unchanged       under another bundle: the same verdict for the same reason
  changed         under another bundle: another verdict, or another reason
  not_replayable  the record does not hold what it takes, and why

With --vault sensitive arguments that were sealed are opened, held against their
commitments, and the call is decided with them.

It exits with 0 when nothing differs or changed, with 1 when something did, and with 2
when nothing could be decided again.`,
		Example: `  writ replay --ledger /var/lib/writ/ledger --bundle /etc/writ/bundle
  writ replay --store /var/lib/writ-collector --bundle next/ --since 7d --junit replay.xml`,
		Args: cobra.NoArgs,
	}
	from, filter, sealed := &recordSource{}, &recordFilter{}, &vaultFlags{}
	from.add(cmd.Flags())
	filter.addCommon(cmd.Flags())
	sealed.add(cmd.Flags())
	dir := cmd.Flags().StringP("bundle", "b", "", "directory of the bundle to decide under")
	_ = cmd.MarkFlagRequired("bundle")
	form := addOutput(cmd)
	junit := cmd.Flags().String("junit", "", "also write the results as JUnit XML to this file: a case for each tool, roles and result")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		selected, err := filter.message(time.Now())
		if err != nil {
			return err
		}
		selected.Kinds = []writv1.RecordKind{writv1.RecordKind_RECORD_KIND_DECISION}
		bundle, err := bundles.LoadDir(cmd.Context(), *dir, bundles.Options{})
		if err != nil {
			return err
		}
		reader, closer, err := from.open()
		if err != nil {
			return from.advise(err)
		}
		defer closer.Close() //nolint:errcheck // read only
		r := newReplaying(bundle)
		if r.opener, err = sealed.openerOrNone(cmd.Context()); err != nil {
			return err
		}
		if err := r.all(cmd.Context(), reader, selected); err != nil {
			return from.advise(err)
		}
		if err := from.complete(cmd.ErrOrStderr(), reader); err != nil {
			return from.advise(err)
		}
		if *junit != "" {
			if err := writeFile(*junit, r.writeJUnit); err != nil {
				return err
			}
		}
		return r.finish(cmd.OutOrStdout(), *form)
	}
	return cmd
}

// mostNamed bounds the decisions that are named one by one, the newest.
const mostNamed = 100

// replaying decides the records of a ledger again.
type replaying struct {
	bundle  *policy.Bundle
	digest  string
	opener  *originals.Opener // nil without a vault
	report  replayReport
	changes map[replayChange]int
	alike   map[replayAlike]int
}

// replayAlike is a kind of decisions of one tool and roles that came out as they were, or
// that could not be made again.
type replayAlike struct{ tool, roles, result, why string }

func newReplaying(bundle *policy.Bundle) *replaying {
	digest := bundle.Digest()
	return &replaying{bundle: bundle, digest: string(digest[:]), changes: make(map[replayChange]int), alike: make(map[replayAlike]int), report: replayReport{
		Bundle: fmt.Sprintf("sha256:%x", digest), NotReplayable: make(map[string]int), Changes: []replayChange{}, Named: []replayedChanged{},
	}}
}

// replayReport is what came of it.
type replayReport struct {
	Bundle        string            `json:"bundle"`
	Decisions     int               `json:"decisions"`
	Recomputed    int               `json:"recomputed"`
	Witnessed     int               `json:"witnessed"`
	Differs       int               `json:"differs"`
	Unchanged     int               `json:"unchanged"`
	Changed       int               `json:"changed"`
	NotReplayable map[string]int    `json:"not_replayable"`
	Changes       []replayChange    `json:"changes"`
	Named         []replayedChanged `json:"decisions_changed"`
}

// replayChange is one row of the table of what is decided otherwise.
type replayChange struct {
	Tool   string `json:"tool"`
	Roles  string `json:"roles"`
	Before string `json:"before"`
	After  string `json:"after"`
	Check  string `json:"check"`
	Count  int    `json:"count"`
}

// replayedChanged is one decision that is made otherwise now.
type replayedChanged struct {
	Decision string `json:"decision_id"`
	Ledger   string `json:"ledger"`
	Index    uint64 `json:"index"`
	Before   string `json:"before"`
	After    string `json:"after"`
}

// replayed is one record with what came of it.
type replayed struct {
	stored *writv1.StoredRecord
	record *writv1.Record
	body   *writv1.DecisionRecord
	again  replay.Result
}

// all decides what a filter selects again, a page at a time, each page on all cores.
func (r *replaying) all(ctx context.Context, reader query.Reader, filter *writv1.RecordFilter) error {
	request := &writv1.ListRecordsRequest{Filter: filter, PageSize: 1000}
	for {
		page, err := reader.List(ctx, request)
		if err != nil {
			return err
		}
		done := make([]replayed, len(page.GetRecords()))
		var group errgroup.Group
		group.SetLimit(runtime.GOMAXPROCS(0))
		const batch = 64
		for from := 0; from < len(done); from += batch {
			group.Go(func() error {
				for i := from; i < min(from+batch, len(done)); i++ {
					if err := r.one(ctx, page.GetRecords()[i], &done[i]); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		for i := range done {
			r.count(&done[i])
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return nil
		}
	}
}

// one decides one record again. It is called by several goroutines.
func (r *replaying) one(ctx context.Context, stored *writv1.StoredRecord, out *replayed) error {
	*out = replayed{stored: stored, record: &writv1.Record{}, body: &writv1.DecisionRecord{}}
	if err := canonical.Unmarshal(stored.GetRecord(), out.record); err != nil {
		return fmt.Errorf("read a record: %w", err)
	}
	if err := canonical.Unmarshal(out.record.GetBody(), out.body); err != nil {
		return fmt.Errorf("read record %d: %w", out.record.GetIndex(), err)
	}
	var err error
	out.again, err = decideOpened(ctx, r.bundle, r.opener, out.record, out.body)
	return err
}

func (r *replaying) count(one *replayed) {
	r.report.Decisions++
	before, after := one.body.GetDecision(), one.again.Decision
	alike := replayAlike{tool: one.body.GetTool(), roles: strings.Join(one.body.GetPrincipal().GetRoles(), ",")}
	alike.result, alike.why = r.resultOf(one), one.again.Why
	switch alike.result {
	case "not_replayable":
		r.report.NotReplayable[one.again.Why]++
	case "recomputed":
		r.report.Recomputed++
	case "witnessed":
		r.report.Witnessed++
	case "unchanged":
		r.report.Unchanged++
	case "differs":
		r.report.Differs++
	default:
		r.report.Changed++
	}
	if alike.result != "differs" && alike.result != "changed" {
		r.alike[alike]++
		return
	}
	change := replayChange{
		Tool: alike.tool, Roles: alike.roles,
		Before: verdictText(before), After: verdictText(after), Check: checkText(before, after),
	}
	r.changes[change]++
	if len(r.report.Named) < mostNamed {
		r.report.Named = append(r.report.Named, replayedChanged{
			Decision: fmt.Sprintf("%x", one.record.GetDecisionId()), Ledger: one.stored.GetOrigin(), Index: one.record.GetIndex(),
			Before: change.Before, After: change.After,
		})
	}
}

// resultOf is what came of one record, in a word.
func (r *replaying) resultOf(one *replayed) string {
	before, after := one.body.GetDecision(), one.again.Decision
	own := string(one.record.GetBundleDigest()) == r.digest
	switch {
	case after == nil:
		return "not_replayable"
	case own && one.again.Same && one.again.Witnessed:
		return "witnessed"
	case own && one.again.Same:
		return "recomputed"
	case own:
		return "differs"
	case before.GetVerdict() == after.GetVerdict() && before.GetReason() == after.GetReason():
		return "unchanged"
	default:
		return "changed"
	}
}

func verdictText(d *writv1.Decision) string {
	return policy.VerdictName(d.GetVerdict()) + " " + reasonName(d.GetReason())
}

// checkText names the check that makes the difference: the one that stands in the way
// now, or, where nothing does, the one that did.
func checkText(before, after *writv1.Decision) string {
	check := decidingCheck(after)
	if check == nil {
		check = decidingCheck(before)
	}
	if check == nil {
		return ""
	}
	return check.GetStage() + "/" + check.GetName()
}
