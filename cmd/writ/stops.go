// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/writ-dev/writ/collector/query"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
)

func newStop() *cobra.Command {
	desk, order := &stopDesk{}, &stopFlags{}
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop calls at once, without a new bundle",
		Long: `Stop denies the calls to which everything that it is given applies, from the moment it
returns until --for is over or "writ stop lift" ends it. Calls that were let through or
are being carried out go on; every other one of them is denied GRANT_STOPPED.

The order goes to one agent (--agent), or to a collector (--collector), which sends it on
to the agents that are connected and to those that come. It is signed with the operator's
key, and recorded. An agent's configuration names its operators among "approvers": with
the role "operator" they stop the calls of their tenant, and with "all_tenants: true"
those of every tenant. A collector's names them among "operators".`,
		Example: `  writ stop --agent unix:/run/writ/planner.sock --key ops.key --tool invoices.pay --for 2h --why "paid twice"
  writ stop --collector collector.example.org:7443 --tenant acme --principal spiffe://example.org/planner
  writ stop list
  writ stop lift 3f2a`,
		Args: cobra.NoArgs,
	}
	desk.add(cmd.PersistentFlags())
	cmd.PersistentFlags().StringVar(&desk.collector, "collector", "", "address of a collector, for all its agents, in place of one agent's")
	cmd.MarkFlagsMutuallyExclusive("agent", "collector")
	order.add(cmd.Flags())
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		stop, err := order.stop(cmd.Flags(), time.Now())
		if err != nil {
			return err
		}
		return desk.operate(cmd, func(ctx context.Context, o *operator) error {
			return o.order(ctx, cmd.OutOrStdout(), *form, stop, writv1.StopChoice_STOP_CHOICE_STOP)
		})
	}
	cmd.AddCommand(newStopList(desk), newStopLift(desk))
	return cmd
}

// stopFlags say what is stopped, for how long, and why.
type stopFlags struct {
	tool, tenant, principal, model, session, why string

	life time.Duration
}

func (f *stopFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.tool, "tool", "", "calls of this tool, or of those below a prefix: invoices.pay, \"invoices.*\", \"*\"")
	flags.StringVar(&f.tenant, "tenant", "", "calls of this tenant; \"\" is who has none. Without the flag: of all tenants")
	flags.StringVar(&f.principal, "principal", "", "calls of this workload, by its SPIFFE ID, or of this user")
	flags.StringVar(&f.model, "model", "", "calls that claim this model route or pin; who claims another is not stopped")
	flags.StringVar(&f.session, "session", "", "calls of this session, by the 32 hexadecimal digits that records show")
	flags.DurationVar(&f.life, "for", time.Hour, "how long, at most 744h")
	flags.StringVar(&f.why, "why", "", "why, for the record; planners are not told")
}

// stop returns what the flags stop.
func (f *stopFlags) stop(flags *pflag.FlagSet, now time.Time) (*writv1.Stop, error) {
	scope := &writv1.StopScope{Tool: f.tool, Principal: f.principal, Model: f.model, Session: f.session}
	if flags.Changed("tenant") {
		scope.Tenant = &f.tenant
	}
	if f.tool == "" && f.principal == "" && f.model == "" && f.session == "" && scope.Tenant == nil {
		return nil, hinted(errors.New("nothing says which calls are stopped"), "give some of --tool, --tenant, --principal, --model and --session; --tool '*' stops everything")
	}
	if f.life <= 0 {
		return nil, fmt.Errorf("--for %s: a stop lasts a while", f.life)
	}
	return &writv1.Stop{Scope: scope, Why: f.why, Time: timestamppb.New(now), ExpireTime: timestamppb.New(now.Add(f.life))}, nil
}

// stopDesk is where an operator works: at an agent, or at a collector.
type stopDesk struct {
	approvalDesk
	collector string
}

// connect connects to the collector, where one is named, and else to the agent.
func (d *stopDesk) connect() (*approvals.Key, *grpc.ClientConn, error) {
	if d.collector == "" {
		return d.approvalDesk.connect()
	}
	key, err := d.signer()
	if err != nil {
		return nil, nil, err
	}
	conn, err := dial("collector", d.collector, d.tls.config())
	return key, conn, err
}

// advise adds to an error what its reader may do.
func (d *stopDesk) advise(err error) error {
	if answer, ok := status.FromError(err); err != nil && ok && d.collector != "" && answer.Code() == codes.Unavailable {
		return hinted(errors.New(answer.Message()), "is a collector running at %s? --agent stops calls at one agent without it", d.collector)
	}
	return d.approvalDesk.advise(err)
}

// operator is an operator at work.
type operator struct {
	*approver
	stops writv1.StopServiceClient
}

// operate runs an operator's work at the desk.
func (d *stopDesk) operate(cmd *cobra.Command, work func(context.Context, *operator) error) error {
	key, conn, err := d.connect()
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost with it
	o := &operator{approver: &approver{key: key}, stops: writv1.NewStopServiceClient(conn)}
	ctx, err := o.as(cmd.Context())
	if err != nil {
		return err
	}
	return d.advise(work(ctx, o))
}

// order signs an order and gives it.
func (o *operator) order(ctx context.Context, w io.Writer, form output, stop *writv1.Stop, choice writv1.StopChoice) error {
	order, err := o.key.Order(stop, choice)
	if err != nil {
		return err
	}
	response, err := o.stops.OrderStop(ctx, &writv1.OrderStopRequest{Order: order})
	if err != nil {
		return err
	}
	held := response.GetStop()
	if form == outputJSON {
		return writeStops(w, form, []*writv1.HeldStop{held})
	}
	done := fmt.Sprintf("stopped  %s until %s\nid       %s\n", scopeText(stop.GetScope()), stop.GetExpireTime().AsTime().Format(time.RFC3339), held.GetId())
	if choice == writv1.StopChoice_STOP_CHOICE_LIFT {
		done = fmt.Sprintf("lifted   %s\nid       %s\n", scopeText(stop.GetScope()), held.GetId())
	}
	if response.Agents != nil {
		done += fmt.Sprintf("agents   %d connected\n", response.GetAgents())
	}
	_, err = io.WriteString(w, done)
	return err
}

func newStopList(desk *stopDesk) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the stops that you may lift, and those that were lifted, until they end",
		Args:  cobra.NoArgs,
	}
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return desk.operate(cmd, func(ctx context.Context, o *operator) error {
			response, err := o.stops.ListStops(ctx, &writv1.ListStopsRequest{})
			if err != nil {
				return err
			}
			return writeStops(cmd.OutOrStdout(), *form, response.GetStops())
		})
	}
	return cmd
}

func newStopLift(desk *stopDesk) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lift ID",
		Short: "Lift a stop, for good",
		Long: `Lift ends a stop before its time. The same stop cannot be ordered again; another one, of
the same calls, can. An id may be cut short as long as it means one stop.`,
		Args: cobra.ExactArgs(1),
	}
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return desk.operate(cmd, func(ctx context.Context, o *operator) error {
			held, err := o.find(ctx, strings.ToLower(args[0]))
			if err != nil {
				return err
			}
			return o.order(ctx, cmd.OutOrStdout(), *form, held.GetOrder().GetStop(), writv1.StopChoice_STOP_CHOICE_LIFT)
		})
	}
	return cmd
}

// find returns the one stop whose id begins so.
func (o *operator) find(ctx context.Context, id string) (*writv1.HeldStop, error) {
	response, err := o.stops.ListStops(ctx, &writv1.ListStopsRequest{})
	if err != nil {
		return nil, err
	}
	var found *writv1.HeldStop
	for _, held := range response.GetStops() {
		if id == "" || !strings.HasPrefix(held.GetId(), id) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("more than one stop begins with %s; write more of it", id)
		}
		found = held
	}
	if found == nil {
		return nil, hinted(fmt.Errorf("no stop begins with %s", id), "\"writ stop list\" lists them")
	}
	return found, nil
}

// scopeText says in words which calls a scope is of.
func scopeText(scope *writv1.StopScope) string {
	var parts []string
	add := func(word, value string) {
		if value != "" {
			parts = append(parts, word+" "+query.Word(value))
		}
	}
	add("tool", scope.GetTool())
	add("principal", scope.GetPrincipal())
	add("model", scope.GetModel())
	add("session", scope.GetSession())
	if scope.Tenant != nil {
		parts = append(parts, "tenant "+query.Word(scope.GetTenant()))
	}
	return strings.Join(parts, ", ")
}

// writeStops writes stops, a line each.
func writeStops(w io.Writer, form output, all []*writv1.HeldStop) error {
	if form == outputJSON {
		lines := make([]json.RawMessage, len(all))
		for i, held := range all {
			text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(held)
			if err != nil {
				return fmt.Errorf("print: %w", err)
			}
			lines[i] = text
		}
		return printJSON(w, lines)
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "nothing is stopped")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tSTATE\tUNTIL\tBY\tCALLS\tWHY")
	for _, held := range all {
		stop, state := held.GetOrder().GetStop(), "stopped"
		if held.GetOrder().GetChoice() == writv1.StopChoice_STOP_CHOICE_LIFT {
			state = "lifted"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", held.GetId(), state, stop.GetExpireTime().AsTime().Format(time.RFC3339),
			query.Word(held.GetOrder().GetOperator()), scopeText(stop.GetScope()), query.Word(stop.GetWhy()))
	}
	return table.Flush()
}
