// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/ledger"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func newRecords() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "records",
		Short: "List, follow, show and export what was recorded",
		Long: `Records reads decisions and outcomes: from a collector (--collector), from a
collector's store (--store), or from an agent's ledger (--ledger), which is verified as
it is read. A store and a ledger are directories, read beside whoever writes them, or
without.`,
	}
	from := &recordSource{}
	from.add(cmd.PersistentFlags())
	cmd.AddCommand(newRecordsList(from), newRecordsTail(from), newRecordsShow(from), newRecordsOpen(from), newRecordsProve(from), newRecordsExport(from))
	return cmd
}

// recordSource is where records are read.
type recordSource struct {
	ledger, store, collector string

	tls tlsFlags
}

func (s *recordSource) add(flags *pflag.FlagSet) {
	flags.StringVarP(&s.ledger, "ledger", "l", "", "directory of an agent's ledger")
	flags.StringVar(&s.store, "store", "", "directory of a collector's store")
	flags.StringVar(&s.collector, "collector", "", "address of a collector, unix:/path or host:port")
	s.tls.add(flags, "collector")
}

// open returns the reader and what gives it free.
func (s *recordSource) open() (query.Reader, io.Closer, error) {
	where := "give one of --collector ADDRESS, --store DIR, --ledger DIR"
	switch named := len(slices.DeleteFunc([]string{s.ledger, s.store, s.collector}, func(name string) bool { return name == "" })); {
	case named == 0:
		return nil, nil, hinted(errors.New("nothing says where the records are"), "%s", where)
	case named > 1:
		return nil, nil, hinted(errors.New("the records cannot be in two places"), "%s", where)
	case s.collector == "" && s.tls.config() != nil:
		return nil, nil, errors.New("--tls-ca, --tls-cert and --tls-key go with --collector")
	case s.collector != "":
		return s.dial()
	case s.store != "":
		return query.FromStoreDir(s.store), io.NopCloser(nil), nil
	default:
		reader, err := query.FromLedger(s.ledger)
		return reader, io.NopCloser(nil), err
	}
}

func (s *recordSource) dial() (query.Reader, io.Closer, error) {
	conn, err := dialCollector(s.collector, s.tls.config())
	if err != nil {
		return nil, nil, err
	}
	return query.FromService(writv1.NewRecordServiceClient(conn)), conn, nil
}

// advise adds to an error what its reader may do.
func (s *recordSource) advise(err error) error {
	var answer *query.ServiceError
	var fault *ledger.Fault
	switch {
	case err == nil:
		return nil
	case errors.As(err, &fault):
		return hinted(fmt.Errorf("the ledger is not whole, and nothing from there on is shown: %w", err), "\"writ verify --ledger %s\" tells more", s.ledger)
	case errors.Is(err, fs.ErrNotExist) && s.ledger != "":
		return hinted(err, "an agent keeps its ledger in \"ledger\" below its data_dir")
	case errors.Is(err, fs.ErrNotExist) && s.store != "":
		return hinted(err, "the store is the directory that holds store.db, the collector's data_dir")
	case errors.As(err, &answer) && answer.Code == codes.Unavailable:
		return hinted(err, "is a collector running at %s?", s.collector)
	case errors.As(err, &answer) && answer.Code == codes.Unimplemented:
		return hinted(err, "the collector is of an older version than this program")
	case errors.Is(err, query.ErrTooMany):
		return hinted(err, "\"writ records list --origin ORIGIN\" lists one ledger at a time")
	default:
		return err
	}
}

// complete says whether everything that the reader has was read. What of a ledger is
// damaged is not shown.
func (s *recordSource) complete(stderr io.Writer, reader query.Reader) error {
	of, ok := reader.(*query.LedgerReader)
	if !ok {
		return nil
	}
	err := of.Incomplete()
	var fault *ledger.Fault
	if err == nil || errors.As(err, &fault) {
		return err
	}
	_, err = fmt.Fprintf(stderr, "writ: note: %v: they are being written, or were never answered\n", err)
	return err
}

// recordFilter are the flags that select records.
type recordFilter struct {
	since, until, tool, verdict, tenant, principal, origin, expression string

	kinds []string
}

// verdicts and kinds are the words of flags.
var (
	verdicts = map[string]writv1.Verdict{
		"allow":          writv1.Verdict_VERDICT_ALLOW,
		"deny":           writv1.Verdict_VERDICT_DENY,
		"needs-approval": writv1.Verdict_VERDICT_NEEDS_APPROVAL,
	}
	recordKinds = kindsByWord()
)

func kindsByWord() map[string]writv1.RecordKind {
	words := make(map[string]writv1.RecordKind)
	for kind, name := range writv1.RecordKind_name {
		if kind != int32(writv1.RecordKind_RECORD_KIND_UNSPECIFIED) {
			words[strings.ToLower(strings.TrimPrefix(name, "RECORD_KIND_"))] = writv1.RecordKind(kind)
		}
	}
	return words
}

func wordsOf[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for word := range m {
		out = append(out, word)
	}
	slices.Sort(out)
	return out
}

func (f *recordFilter) add(cmd *cobra.Command) {
	f.addCommon(cmd.Flags())
	cmd.Flags().StringSliceVar(&f.kinds, "kind", nil, "of these kinds: "+strings.Join(wordsOf(recordKinds), ", "))
	_ = cmd.RegisterFlagCompletionFunc("verdict", cobra.FixedCompletions(wordsOf(verdicts), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(wordsOf(recordKinds), cobra.ShellCompDirectiveNoFileComp))
}

// addCommon adds the flags that select records of any kind.
func (f *recordFilter) addCommon(flags *pflag.FlagSet) {
	flags.StringVar(&f.since, "since", "", "not before: a time (RFC 3339), or how long ago (\"90m\", \"7d\")")
	flags.StringVar(&f.until, "until", "", "before: a time, or how long ago")
	flags.StringVar(&f.tool, "tool", "", "of this tool")
	flags.StringVar(&f.verdict, "verdict", "", "with this verdict: "+strings.Join(wordsOf(verdicts), ", "))
	flags.StringVar(&f.tenant, "tenant", "", "of this tenant")
	flags.StringVar(&f.principal, "principal", "", "of this workload or user")
	flags.StringVar(&f.origin, "origin", "", "of the ledger with this origin")
	flags.StringVar(&f.expression, "filter", "", "an AIP-160 filter, such as 'check:small AND NOT user = ada'")
}

// message is the filter, with times seen from now.
func (f *recordFilter) message(now time.Time) (*writv1.RecordFilter, error) {
	out := &writv1.RecordFilter{Tool: f.tool, Tenant: f.tenant, Principal: f.principal, Origin: f.origin, Expression: f.expression}
	var err error
	if out.StartTime, err = instant("since", f.since, now); err != nil {
		return nil, err
	}
	if out.EndTime, err = instant("until", f.until, now); err != nil {
		return nil, err
	}
	if f.verdict != "" {
		if out.Verdict = verdicts[f.verdict]; out.GetVerdict() == 0 {
			return nil, hinted(fmt.Errorf("--verdict %q is no verdict", f.verdict), "one of %s", strings.Join(wordsOf(verdicts), ", "))
		}
	}
	for _, word := range f.kinds {
		kind := recordKinds[word]
		if kind == 0 {
			return nil, hinted(fmt.Errorf("--kind %q is no kind of record", word), "one of %s", strings.Join(wordsOf(recordKinds), ", "))
		}
		out.Kinds = append(out.Kinds, kind)
	}
	return out, nil
}

// instant reads a time, or how long before now it is.
func instant(flag, text string, now time.Time) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return timestamppb.New(at), nil
	}
	ago, err := time.ParseDuration(text)
	if days, isDays := strings.CutSuffix(text, "d"); isDays {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16) // 65,535 days fit a Duration
		ago = time.Duration(n) * 24 * time.Hour  //nolint:gosec // 16 bits
	}
	if err != nil || ago < 0 {
		return nil, hinted(fmt.Errorf("--%s %q is neither a time nor how long ago", flag, text), "such as 2026-01-31T09:00:00Z, 90m or 7d")
	}
	return timestamppb.New(now.Add(-ago)), nil
}

// maxListed is how many records are listed at most.
const maxListed = 1_000_000

func newRecordsList(from *recordSource) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List records, newest first",
		Args:  cobra.NoArgs,
	}
	form := addRecordForm(cmd)
	filter := &recordFilter{}
	filter.add(cmd)
	limit := cmd.Flags().IntP("limit", "n", query.DefaultPage, "most records to list")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *limit < 1 || *limit > maxListed {
			return fmt.Errorf("--limit is 1 to %d", maxListed)
		}
		return from.list(cmd, filter, form, func(l *listing) error {
			l.limit = *limit
			return l.list(cmd.Context(), l.write)
		})
	}
	return cmd
}

// tailed is how many records that are there are printed before those to come.
const tailed = 10

func newRecordsTail(from *recordSource) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Print the newest records, and go on with those to come",
		Long: `Tail prints the newest records, oldest first, and then each as it is written or stored,
until it is interrupted.`,
		Args: cobra.NoArgs,
	}
	form := addRecordForm(cmd)
	filter := &recordFilter{}
	filter.add(cmd)
	limit := cmd.Flags().IntP("limit", "n", tailed, "most records to begin with")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case *limit < 0 || *limit > maxListed:
			return fmt.Errorf("--limit is 0 to %d", maxListed)
		case filter.until != "":
			return errors.New("tail goes on until it is interrupted: it does not go with --until")
		}
		return from.list(cmd, filter, form, func(l *listing) error {
			l.limit = *limit
			return l.follow(cmd.Context())
		})
	}
	return cmd
}

// list opens what is listed for a run of it.
func (s *recordSource) list(cmd *cobra.Command, filter *recordFilter, form *recordForm, run func(*listing) error) error {
	selected, err := filter.message(time.Now())
	if err != nil {
		return err
	}
	reader, closer, err := s.open()
	if err != nil {
		return s.advise(err)
	}
	err = run(&listing{reader: reader, filter: selected, write: form.writer(cmd.OutOrStdout())})
	if err == nil {
		err = s.complete(cmd.ErrOrStderr(), reader)
	}
	return errors.Join(s.advise(err), closer.Close())
}

// listing is a run of "writ records list" or "tail".
type listing struct {
	reader query.Reader
	filter *writv1.RecordFilter
	limit  int
	write  func([]*writv1.StoredRecord) error
}

// list gives the newest records to take, page by page.
func (l *listing) list(ctx context.Context, take func([]*writv1.StoredRecord) error) error {
	request := &writv1.ListRecordsRequest{Filter: l.filter}
	for left := l.limit; left > 0; {
		request.PageSize = int32(min(left, 1000)) //nolint:gosec // at most 1000
		page, err := l.reader.List(ctx, request)
		if err != nil {
			return err
		}
		records := page.GetRecords()
		if len(records) > left || len(records) == 0 && page.GetNextPageToken() != "" {
			return errors.New("the collector answers with a page that was not asked for")
		}
		if err := take(records); err != nil {
			return err
		}
		left -= len(records)
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			break
		}
	}
	return nil
}

// follow prints the newest records oldest first, and goes on until it is interrupted.
func (l *listing) follow(ctx context.Context) error {
	// It watches before it lists: nothing is missed, and what comes twice is known.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	watched, err := l.reader.Watch(ctx, l.filter)
	if err != nil {
		return err
	}
	var listed []*writv1.StoredRecord
	if err := l.list(ctx, func(records []*writv1.StoredRecord) error {
		listed = append(listed, records...)
		return nil
	}); err != nil {
		return unlessInterrupted(ctx, err)
	}
	slices.Reverse(listed)
	if err := l.write(listed); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, record := range listed {
		seen[record.GetOrigin()+"\x00"+string(record.GetRecord())] = true
	}
	for record, err := range watched {
		if err != nil {
			return unlessInterrupted(ctx, err)
		}
		if key := record.GetOrigin() + "\x00" + string(record.GetRecord()); seen[key] {
			delete(seen, key)
			continue
		}
		if err := l.write([]*writv1.StoredRecord{record}); err != nil {
			return err
		}
	}
	return nil
}

// unlessInterrupted is nil for the error of a command that was told to end.
func unlessInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func newRecordsShow(from *recordSource) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show DECISION_ID",
		Short: "Show everything recorded of a decision",
		Args:  cobra.ExactArgs(1),
	}
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		reader, closer, err := from.open()
		if err != nil {
			return from.advise(err)
		}
		records, err := reader.Get(cmd.Context(), strings.ToLower(args[0]))
		if part := from.complete(cmd.ErrOrStderr(), reader); part != nil {
			return errors.Join(from.advise(part), closer.Close())
		}
		switch {
		case errors.Is(err, query.ErrNotFound):
			fmt.Fprintf(cmd.ErrOrStderr(), "writ: error: nothing is recorded of decision %s\n", args[0])
			err = errNo
		case errors.Is(err, query.ErrInvalid):
			err = hinted(fmt.Errorf("%q is no id of a decision", args[0]), "it has 32 hexadecimal digits: \"writ records list\" prints it")
		case err == nil && *form == outputJSON:
			err = query.WriteJSON(cmd.OutOrStdout(), records)
		case err == nil:
			err = query.WriteRecord(cmd.OutOrStdout(), records)
		}
		return errors.Join(from.advise(err), closer.Close())
	}
	return cmd
}

// recordForm is the form in which records are listed.
type recordForm string

// String, Set and Type make recordForm a flag's value.
func (f *recordForm) String() string { return string(*f) }

// Set takes table or json.
func (f *recordForm) Set(s string) error {
	if s != "table" && s != "json" {
		return fmt.Errorf("output is table or json, not %q", s)
	}
	*f = recordForm(s)
	return nil
}

// Type names the value in help texts.
func (f *recordForm) Type() string { return "table|json" }

func (f *recordForm) writer(w io.Writer) func([]*writv1.StoredRecord) error {
	if *f == "json" {
		return func(records []*writv1.StoredRecord) error { return query.WriteJSON(w, records) }
	}
	return query.NewTable(w).Write
}

func addRecordForm(cmd *cobra.Command) *recordForm {
	f := recordForm("table")
	cmd.Flags().VarP(&f, "output", "o", "form of the results; json is one object a line")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return &f
}
