// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/collector/query"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// shortDigest is how many hexadecimal digits of a digest stand in a table.
const shortDigest = 12

func newAgents() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agents",
		Short: "List and show the agents that send to a collector",
		Long: `Agents tells of the agents whose ledgers a collector holds: whether they are heard,
what bundle is in force, the signed head that is held, their last heartbeat, how far the
collector is behind, how full their ledger is, and what was found to be wrong. It reads
from the collector (--collector) or from its store (--store), beside it or without it.`,
	}
	from := &agentSource{}
	from.add(cmd.PersistentFlags())
	cmd.AddCommand(newAgentsList(from), newAgentsShow(from))
	return cmd
}

// agentSource is where agents are read.
type agentSource struct {
	store, collector string
	silence          time.Duration
	tls              tlsFlags
}

func (s *agentSource) add(flags *pflag.FlagSet) {
	flags.StringVar(&s.store, "store", "", "directory of a collector's store")
	flags.StringVar(&s.collector, "collector", "", "address of a collector, unix:/path or host:port")
	flags.DurationVar(&s.silence, "silence", 0, "with --store: after how long without a record an agent is silent (default 30s)")
	s.tls.add(flags, "collector")
}

// open returns the reader and what gives it free.
func (s *agentSource) open() (query.AgentReader, io.Closer, error) {
	switch {
	case (s.store == "") == (s.collector == ""):
		return nil, nil, hinted(errors.New("agents are read in one place"), "give one of --collector ADDRESS, --store DIR")
	case s.collector == "" && s.tls.config() != nil:
		return nil, nil, errors.New("--tls-ca, --tls-cert and --tls-key go with --collector")
	case s.collector != "" && s.silence != 0:
		return nil, nil, errors.New("--silence goes with --store: a collector has it in its configuration")
	case s.store != "":
		return query.AgentsFromStoreDir(s.store, query.Hearing{Silence: s.silence}), io.NopCloser(nil), nil
	}
	conn, err := dialCollector(s.collector, s.tls.config())
	if err != nil {
		return nil, nil, err
	}
	return query.AgentsFromService(writv1.NewAgentServiceClient(conn)), conn, nil
}

// advise adds to an error what its reader may do.
func (s *agentSource) advise(err error) error {
	var answer *query.ServiceError
	switch {
	case errors.Is(err, fs.ErrNotExist) && s.store != "":
		return hinted(err, "the store is the directory that holds store.db, the collector's data_dir")
	case errors.As(err, &answer) && answer.Code == codes.Unavailable:
		return hinted(err, "is a collector running at %s?", s.collector)
	default:
		return err
	}
}

func newAgentsList(from *agentSource) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List agents, by name", Args: cobra.NoArgs}
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		reader, closer, err := from.open()
		if err != nil {
			return err
		}
		agents, err := everyAgent(cmd.Context(), reader)
		if err == nil {
			err = printAgents(cmd.OutOrStdout(), *form, agents, time.Now())
		}
		return errors.Join(from.advise(err), closer.Close())
	}
	return cmd
}

// everyAgent reads page after page.
func everyAgent(ctx context.Context, reader query.AgentReader) ([]*writv1.Agent, error) {
	var all []*writv1.Agent
	request := &writv1.ListAgentsRequest{PageSize: 200}
	for {
		page, err := reader.ListAgents(ctx, request)
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetAgents()...)
		if request.PageToken = page.GetNextPageToken(); request.GetPageToken() == "" {
			return all, nil
		}
		if len(page.GetAgents()) == 0 || len(all) > maxListed {
			return nil, errors.New("the collector answers with pages that do not end")
		}
	}
}

func printAgents(w io.Writer, form output, agents []*writv1.Agent, now time.Time) error {
	if form == outputJSON {
		return printMessages(w, agents)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "AGENT\tSTATE\tEPOCH\tBUNDLE\tSIZE\tROOT\tHEARD\tHEARTBEAT\tLAG\tSPACE\tFINDINGS")
	for _, a := range agents {
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", query.Word(a.GetOrigin()), stateOf(a), a.GetEpoch(), bundleOf(a),
			a.GetSize(), short(a.GetRoot()), ago(a.GetReceiveTime(), now), ago(a.GetHeartbeat().GetTime(), now), lagOf(a), spaceOf(a), findingsOf(a))
	}
	return table.Flush()
}

func newAgentsShow(from *agentSource) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show ORIGIN",
		Short: "Show an agent and what was found to be wrong with it",
		Args:  cobra.ExactArgs(1),
	}
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		reader, closer, err := from.open()
		if err != nil {
			return err
		}
		shown, err := reader.GetAgent(cmd.Context(), &writv1.GetAgentRequest{Origin: args[0]})
		switch {
		case errors.Is(err, query.ErrNoAgent):
			fmt.Fprintf(cmd.ErrOrStderr(), "writ: error: no ledger of %s is held\n", query.Word(args[0]))
			err = errNo
		case err == nil && *form == outputJSON:
			err = printMessages(cmd.OutOrStdout(), []*writv1.GetAgentResponse{shown})
		case err == nil:
			err = printAgent(cmd.OutOrStdout(), shown, time.Now())
		}
		return errors.Join(from.advise(err), closer.Close())
	}
	return cmd
}

func printAgent(w io.Writer, shown *writv1.GetAgentResponse, now time.Time) error {
	a := shown.GetAgent()
	lines := []string{
		"agent        " + query.Printable(a.GetOrigin()),
		"state        " + stateOf(a),
		"incarnation  " + query.Printable(a.GetIncarnation()),
		fmt.Sprintf("epoch        %d", a.GetEpoch()),
		"log id       " + hex.EncodeToString(a.GetLogId()),
		"bundle       " + query.Printable(a.GetBundleName()) + " " + hex.EncodeToString(a.GetBundleDigest()),
		fmt.Sprintf("head         %d %s", a.GetSize(), hex.EncodeToString(a.GetRoot())),
		"heard        " + ago(a.GetReceiveTime(), now),
		"heartbeat    " + ago(a.GetHeartbeat().GetTime(), now),
		"lag          " + lagOf(a),
		"space        " + spaceOf(a),
	}
	for _, f := range shown.GetFindings() {
		lines = append(lines, fmt.Sprintf("finding      %s, %d times, last %s: %s; %d records were held (both heads: --output json)", query.Word(f.GetKind()),
			f.GetCount(), f.GetLastTime().AsTime().Format(time.RFC3339), query.Printable(f.GetDetail()), f.GetHeldSize()))
	}
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return err
}

// printMessages prints messages as a JSON array, or one alone.
func printMessages[M proto.Message](w io.Writer, messages []M) error {
	all := []json.RawMessage{}
	for _, m := range messages {
		text, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
		if err != nil {
			return fmt.Errorf("print: %w", err)
		}
		all = append(all, query.PrintableJSON(text))
	}
	return printJSON(w, all)
}

func stateOf(a *writv1.Agent) string {
	return strings.ToLower(strings.TrimPrefix(a.GetState().String(), "AGENT_STATE_"))
}

func bundleOf(a *writv1.Agent) string {
	if len(a.GetBundleDigest()) == 0 {
		return "-"
	}
	return query.Word(a.GetBundleName()) + "@" + short(a.GetBundleDigest())
}

func short(digest []byte) string {
	text := hex.EncodeToString(digest)
	return text[:min(len(text), shortDigest)]
}

// ago is how long a time has passed.
func ago(at *timestamppb.Timestamp, now time.Time) string {
	if at == nil {
		return "-"
	}
	return now.Sub(at.AsTime()).Round(time.Second).String() + " ago"
}

func lagOf(a *writv1.Agent) string {
	if a.GetHeartbeat() == nil {
		return "-"
	}
	return fmt.Sprintf("%d records", a.GetHeartbeat().GetLagRecords())
}

// spaceOf is how much of its room an agent's ledger takes.
func spaceOf(a *writv1.Agent) string {
	most := a.GetHeartbeat().GetLedgerMaxBytes()
	if most == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", float64(a.GetHeartbeat().GetLedgerBytes())/float64(most)*100)
}

func findingsOf(a *writv1.Agent) string {
	if a.GetFindings() == 0 {
		return "0"
	}
	kinds := make([]string, len(a.GetFindingKinds()))
	for i, kind := range a.GetFindingKinds() {
		kinds[i] = query.Word(kind)
	}
	return fmt.Sprintf("%d (%s)", a.GetFindings(), strings.Join(kinds, ", "))
}
