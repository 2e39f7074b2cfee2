// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/collector/query"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
)

func newReviews() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reviews",
		Short: "Review calls that their risk put up for it, and make tests of what reviewers say",
		Long: `Reviews reads the calls that were drawn for review, at the rate that the bundle's folder
risk gives to their score. The riskiest come first. They are read where records are: from
a collector (--collector), its store (--store), or an agent's ledger (--ledger).

A reviewer says what should have been decided. The label is signed with the reviewer's
key and recorded by an agent (--agent); the agent's configuration names its reviewers
among "approvers", with the role "reviewer". Nobody reviews their own calls.`,
	}
	desk := &reviewDesk{}
	desk.from.add(cmd.PersistentFlags())
	desk.selected.addCommon(cmd.PersistentFlags())
	cmd.AddCommand(newReviewsList(desk), newReviewsShow(desk), newReviewsLabel(desk),
		newReviewsExport(desk), newReviewsImport(desk), newReviewsGolden(desk))
	return cmd
}

// reviewDesk is where a reviewer works: where the records are, and the agent that takes
// labels.
type reviewDesk struct {
	from     recordSource
	selected recordFilter
	labels   approvalDesk
}

// addLabels adds the flags of commands that record labels.
func (d *reviewDesk) addLabels(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&d.labels.agent, "agent", "a", os.Getenv("WRIT_AGENT"), "address of the planners' listener of the agent that records labels, unix:/path or host:port (WRIT_AGENT)")
	cmd.Flags().StringVarP(&d.labels.key, "key", "k", os.Getenv("WRIT_APPROVER_KEY"), "file of the reviewer's private key; \"writ approvals key\" makes one (WRIT_APPROVER_KEY)")
}

// reviews reads the calls that were put up for review.
func (d *reviewDesk) reviews(cmd *cobra.Command) ([]*query.Review, error) {
	filter, err := d.selected.message(time.Now())
	if err != nil {
		return nil, err
	}
	reader, closer, err := d.records()
	if err != nil {
		return nil, d.from.advise(err)
	}
	found, err := query.Reviews(cmd.Context(), reader, filter)
	if err == nil {
		err = d.from.complete(cmd.ErrOrStderr(), reader)
	}
	if errors.Is(err, query.ErrTooMany) {
		err = hinted(fmt.Errorf("more than %d calls were put up for review", query.MostReviews), "select fewer with --since, --until, --tool or --tenant")
	}
	return found, errors.Join(d.from.advise(err), closer.Close())
}

// records opens the records. Certificates are for the agent alone where it records
// labels and no collector is named.
func (d *reviewDesk) records() (query.Reader, io.Closer, error) {
	from := d.from
	if d.labels.agent != "" && from.collector == "" {
		from.tls = tlsFlags{}
	}
	return from.open()
}

// review returns one call; an id may be cut short as long as it means one.
func (d *reviewDesk) review(cmd *cobra.Command, id string) (*query.Review, error) {
	all, err := d.reviews(cmd)
	if err != nil {
		return nil, err
	}
	var found *query.Review
	for _, r := range all {
		if id == "" || !strings.HasPrefix(r.ID, strings.ToLower(id)) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("more than one call under review begins with %s; write more of it", id)
		}
		found = r
	}
	if found == nil {
		return nil, hinted(fmt.Errorf("no call that was put up for review begins with %s", id), "\"writ reviews list --all\" lists them")
	}
	return found, nil
}

// labeller records labels at an agent.
type labeller struct {
	key    *approvals.Key
	client writv1.ReviewServiceClient
	io.Closer
}

func (d *reviewDesk) labeller() (*labeller, error) {
	d.labels.tls = d.from.tls
	key, conn, err := d.labels.connect()
	if err != nil {
		return nil, err
	}
	return &labeller{key: key, client: writv1.NewReviewServiceClient(conn), Closer: conn}, nil
}

// label records what the reviewer says of a call.
func (l *labeller) label(ctx context.Context, r *query.Review, verdict writv1.Verdict, note string) (*writv1.ReviewLabel, error) {
	if !r.Reviewable(l.key.User) {
		return nil, fmt.Errorf("%s made the call %s, and nobody reviews their own calls", l.key.User, r.ID)
	}
	label, err := l.key.Label(&writv1.ReviewLabel{
		DecisionId: r.Record.GetDecisionId(), RecordDigest: r.Digest, Tenant: r.Record.GetTenant(), Verdict: verdict, Note: note,
	})
	if err != nil {
		return nil, err
	}
	response, err := l.client.LabelCall(ctx, &writv1.LabelCallRequest{Label: label})
	return response.GetLabel(), err
}

// advise adds to an error what its reader may do.
func (d *reviewDesk) advise(err error) error {
	if answer, ok := status.FromError(err); ok && answer.Code() == codes.PermissionDenied {
		return hinted(errors.New(answer.Message()), "the agent's configuration names its reviewers among \"approvers\", with the role \"reviewer\" and the tenant")
	}
	return d.labels.advise(err)
}

// unlabelled returns the calls of which no reviewer has said anything.
func unlabelled(all []*query.Review) []*query.Review {
	var out []*query.Review
	for _, r := range all {
		if len(r.Labels) == 0 {
			out = append(out, r)
		}
	}
	return out
}

func newReviewsList(desk *reviewDesk) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the calls that wait for a review, the riskiest first",
		Example: "  writ reviews list --ledger /var/lib/writ/ledger --since 7d",
		Args:    cobra.NoArgs,
	}
	all := cmd.Flags().Bool("all", false, "also those that have labels")
	limit := cmd.Flags().IntP("limit", "n", query.DefaultPage, "most calls to list")
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *limit < 1 {
			return errors.New("--limit is 1 or more")
		}
		found, err := desk.reviews(cmd)
		if err != nil {
			return err
		}
		if !*all {
			found = unlabelled(found)
		}
		shown := found[:min(len(found), *limit)]
		if *form == outputJSON {
			return writeReviewLines(cmd.OutOrStdout(), shown)
		}
		if err := tableReviews(cmd.OutOrStdout(), shown); err != nil {
			return err
		}
		if more := len(found) - len(shown); more > 0 {
			_, err = fmt.Fprintf(cmd.ErrOrStderr(), "writ: note: %d more; --limit lists them\n", more)
		}
		return err
	}
	return cmd
}

func tableReviews(w io.Writer, all []*query.Review) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "no call waits for a review")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DECISION\tTIME\tSCORE\tBAND\tTOOL\tWHO\tVERDICT\tLABEL")
	for _, r := range all {
		risk := r.Body.GetDecision().GetRisk()
		who := r.Body.GetPrincipal().GetUser()
		if who == "" {
			who = r.Body.GetPrincipal().GetWorkload()
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.Time().Format(time.RFC3339), risk.GetScore(), query.Word(risk.GetBand()),
			query.Word(r.Body.GetTool()), query.Word(who), policy.VerdictName(r.Body.GetDecision().GetVerdict()), labelText(r))
	}
	return table.Flush()
}

// labelText is what reviewers say, in a word.
func labelText(r *query.Review) string {
	switch verdict := r.Verdict(); {
	case len(r.Labels) == 0:
		return "-"
	case verdict == writv1.Verdict_VERDICT_UNSPECIFIED:
		return "disputed"
	default:
		return policy.VerdictName(verdict)
	}
}

func newReviewsShow(desk *reviewDesk) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show DECISION",
		Short: "Show a call that was put up for review, and what reviewers said of it",
		Args:  cobra.ExactArgs(1),
	}
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		found, err := desk.review(cmd, args[0])
		if err != nil {
			return err
		}
		if *form == outputJSON {
			return writeReviewLines(cmd.OutOrStdout(), []*query.Review{found})
		}
		reader, closer, err := desk.records()
		if err != nil {
			return desk.from.advise(err)
		}
		records, err := reader.Get(cmd.Context(), found.ID)
		if err == nil {
			err = query.WriteRecord(cmd.OutOrStdout(), records)
		}
		return errors.Join(desk.from.advise(err), closer.Close())
	}
	return cmd
}

func newReviewsLabel(desk *reviewDesk) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "label DECISION VERDICT",
		Short: "Say what should have been decided: allow, deny or needs-approval",
		Long: `Label records what should have been decided on a call: allow, deny or needs-approval. The
label is signed, and is of the decision's record as it was read. A label can be given
again; the last one counts.`,
		Example:           `  writ reviews label --ledger /var/lib/writ/ledger --agent unix:/run/writ/planner.sock --key bob.key c23cc850 deny --note "not the customer's invoice"`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: cobra.FixedCompletions(wordsOf(verdicts), cobra.ShellCompDirectiveNoFileComp),
	}
	desk.addLabels(cmd)
	note := cmd.Flags().String("note", "", "why; it is recorded as it stands")
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		verdict := verdicts[args[1]]
		if verdict == writv1.Verdict_VERDICT_UNSPECIFIED {
			return hinted(fmt.Errorf("%q is no verdict", args[1]), "one of %s", strings.Join(wordsOf(verdicts), ", "))
		}
		l, err := desk.labeller()
		if err != nil {
			return err
		}
		defer l.Close() //nolint:errcheck // nothing is lost with it
		found, err := desk.review(cmd, args[0])
		if err != nil {
			return err
		}
		label, err := l.label(cmd.Context(), found, verdict, *note)
		if err != nil {
			return desk.advise(err)
		}
		if *form == outputJSON {
			return printJSON(cmd.OutOrStdout(), labelOf(label))
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s was %s, and %s says it should be %s\n", found.ID,
			policy.VerdictName(found.Body.GetDecision().GetVerdict()), query.Printable(label.GetReviewer()), policy.VerdictName(label.GetVerdict()))
		return err
	}
	return cmd
}

// labelOf is a label as it is printed.
func labelOf(label *writv1.ReviewLabel) reviewLabel {
	out := reviewLabel{Verdict: policy.VerdictName(label.GetVerdict()), Note: label.GetNote(), Reviewer: label.GetReviewer()}
	if label.GetTime().IsValid() {
		out.Time = label.GetTime().AsTime().Format(time.RFC3339Nano)
	}
	return out
}
