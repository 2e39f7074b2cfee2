// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
)

func newApprovals() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "approvals",
		Short: "See which calls wait for an approval, and approve or deny them",
		Long: `Approvals shows approvers the calls that wait for them, at the planners' listener of an
agent, and votes on them. Every command but "key" takes the approver's private key: it
proves who asks, and signs the vote on exactly what was shown.`,
	}
	desk := &approvalDesk{}
	desk.add(cmd.PersistentFlags())
	cmd.AddCommand(newApprovalsKey(), newApprovalsList(desk), newApprovalsShow(desk),
		newApprovalsVote(desk, writv1.ApprovalChoice_APPROVAL_CHOICE_APPROVE), newApprovalsVote(desk, writv1.ApprovalChoice_APPROVAL_CHOICE_DENY),
		newApprovalsWatch(desk))
	return cmd
}

// approvalDesk is where an approver works.
type approvalDesk struct {
	agent, key string

	tls tlsFlags
}

func (d *approvalDesk) add(flags *pflag.FlagSet) {
	flags.StringVarP(&d.agent, "agent", "a", os.Getenv("WRIT_AGENT"), "address of the agent's planners' listener, unix:/path or host:port (WRIT_AGENT)")
	flags.StringVarP(&d.key, "key", "k", os.Getenv("WRIT_APPROVER_KEY"), "file of the approver's private key (WRIT_APPROVER_KEY)")
	d.tls.add(flags, "agent")
}

// approver is an approver at work.
type approver struct {
	key    *approvals.Key
	client writv1.ApprovalServiceClient
	io.Closer
}

// open connects to the agent as an approver.
func (d *approvalDesk) open() (*approver, error) {
	key, conn, err := d.connect()
	if err != nil {
		return nil, err
	}
	return &approver{key: key, client: writv1.NewApprovalServiceClient(conn), Closer: conn}, nil
}

// connect connects to the agent, and reads who does so.
func (d *approvalDesk) connect() (*approvals.Key, *grpc.ClientConn, error) {
	if d.agent == "" {
		return nil, nil, hinted(errors.New("nothing says where the agent is"), "give --agent ADDRESS, the agent's listeners.planner")
	}
	key, err := d.signer()
	if err != nil {
		return nil, nil, err
	}
	conn, err := dial("agent", d.agent, d.tls.config())
	return key, conn, err
}

// signer reads the approver's key.
func (d *approvalDesk) signer() (*approvals.Key, error) {
	if d.key == "" {
		return nil, hinted(errors.New("nothing says whose key signs"), "give --key FILE; \"writ approvals key\" makes one")
	}
	text, err := os.ReadFile(d.key)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	key, err := approvals.ParseKey(string(text))
	if err != nil {
		return nil, fmt.Errorf("read the key %s: %w", d.key, err)
	}
	return key, nil
}

// as returns a context in which the approver proves who it is.
func (a *approver) as(ctx context.Context) (context.Context, error) {
	credential, err := a.key.Credential(&writv1.ApproverCredential{Time: timestamppb.Now()})
	if err != nil {
		return nil, err
	}
	text, err := proto.Marshal(credential)
	if err != nil {
		return nil, fmt.Errorf("write the credential: %w", err)
	}
	return metadata.AppendToOutgoingContext(ctx, "x-writ-approver-bin", string(text)), nil
}

// at runs a command's work at the desk.
func (d *approvalDesk) at(ctx context.Context, work func(context.Context, *approver) error) error {
	a, err := d.open()
	if err != nil {
		return err
	}
	defer a.Close() //nolint:errcheck // nothing is lost with it
	if ctx, err = a.as(ctx); err != nil {
		return err
	}
	return d.advise(work(ctx, a))
}

// advise adds to an error what its reader may do.
func (d *approvalDesk) advise(err error) error {
	answer, ok := status.FromError(err)
	switch {
	case err == nil || !ok:
		return err
	case answer.Code() == codes.Unavailable:
		return hinted(errors.New(saidOf(answer)), "is an agent running, with listeners.planner at %s?", d.agent)
	case answer.Code() == codes.PermissionDenied:
		return hinted(errors.New(saidOf(answer)), "the configuration names approvers and operators: tenant, roles and public key")
	default:
		return errors.New(saidOf(answer))
	}
}

// saidOf is what a status says, with the field that it speaks of.
func saidOf(answer *status.Status) string {
	for _, detail := range answer.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetMetadata()["field"] != "" {
			return info.GetMetadata()["field"] + ": " + answer.Message()
		}
	}
	return answer.Message()
}

// get returns one approval; an id may be cut short as long as it means one that is held.
func (a *approver) get(ctx context.Context, id string) (*writv1.Approval, error) {
	const whole = 32
	if len(id) == whole {
		response, err := a.client.GetApproval(ctx, &writv1.GetApprovalRequest{ApprovalId: id})
		return response.GetApproval(), err
	}
	all, err := a.list(ctx, allStates)
	if err != nil {
		return nil, err
	}
	var found *writv1.Approval
	for _, approval := range all {
		if id == "" || !strings.HasPrefix(approval.GetSubject().GetApprovalId(), id) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("more than one approval begins with %s; write more of it", id)
		}
		found = approval
	}
	if found == nil {
		return nil, hinted(fmt.Errorf("no approval begins with %s", id), "\"writ approvals list --all\" lists them")
	}
	return found, nil
}

var allStates = []writv1.ApprovalState{
	writv1.ApprovalState_APPROVAL_STATE_PENDING, writv1.ApprovalState_APPROVAL_STATE_APPROVED, writv1.ApprovalState_APPROVAL_STATE_DENIED,
	writv1.ApprovalState_APPROVAL_STATE_EXPIRED, writv1.ApprovalState_APPROVAL_STATE_CONSUMED,
}

func (a *approver) list(ctx context.Context, states []writv1.ApprovalState) ([]*writv1.Approval, error) {
	var all []*writv1.Approval
	for token := ""; ; {
		page, err := a.client.ListApprovals(ctx, &writv1.ListApprovalsRequest{States: states, PageToken: token})
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetApprovals()...)
		if token = page.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

func newApprovalsKey() *cobra.Command {
	return &cobra.Command{
		Use:   "key USER FILE",
		Short: "Make an approver's key",
		Long: `Key makes an Ed25519 key for a user, writes the private key into a new file that only
its owner can read, and prints the public keys for "approvers" in the agent's
configuration: that which votes are signed with, and an X25519 key that is derived from
it, to which the agent seals the sensitive arguments of calls. The user is named as
principals are: who asks for a call cannot approve it.`,
		Example: "  writ approvals key bob ~/.config/writ/approver.key",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			private, public, err := note.GenerateKey(rand.Reader, args[0])
			if err != nil {
				return fmt.Errorf("make the key: %w", err)
			}
			if _, _, err := approvals.ParsePublicKey(public); err != nil {
				return hinted(fmt.Errorf("%q cannot be the name of a key", args[0]), "a name has no spaces and no plus signs")
			}
			file, err := os.OpenFile(args[1], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return fmt.Errorf("write the key: %w", err)
			}
			if _, err := io.WriteString(file, private+"\n"); err != nil {
				return errors.Join(fmt.Errorf("write the key: %w", err), file.Close(), os.Remove(args[1]))
			}
			if err := file.Close(); err != nil {
				return fmt.Errorf("write the key: %w", err)
			}
			key, err := approvals.ParseKey(private)
			if err != nil {
				return fmt.Errorf("read the key that was made: %w", err)
			}
			seal, err := key.SealKey()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "public_key: %s\nseal_key: %s\n", public, seal)
			return err
		},
	}
}

func newApprovalsList(desk *approvalDesk) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the calls that wait for an approval",
		Example: "  writ approvals list --agent unix:/run/writ/planner.sock --key approver.key",
		Args:    cobra.NoArgs,
	}
	all := cmd.Flags().Bool("all", false, "also those that are decided, used or expired")
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return desk.at(cmd.Context(), func(ctx context.Context, a *approver) error {
			states := allStates
			if !*all {
				states = allStates[:1]
			}
			found, err := a.list(ctx, states)
			if err != nil {
				return err
			}
			return writeApprovals(cmd.OutOrStdout(), *form, found)
		})
	}
	return cmd
}

func newApprovalsShow(desk *approvalDesk) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show exactly what an approval would let run",
		Long: `Show prints the call as it was typed: arguments, where each value came from, who asks,
which checks ask for a human, the risk, and what is other than in the last such call that
was approved. Sensitive arguments are opened where they are sealed to the approver's key,
and else redacted. What a terminal would not show, or show elsewhere, is escaped.`,
		Args: cobra.ExactArgs(1),
	}
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return desk.at(cmd.Context(), func(ctx context.Context, a *approver) error {
			approval, err := a.get(ctx, args[0])
			if err != nil {
				return err
			}
			return a.write(cmd.OutOrStdout(), *form, approval)
		})
	}
	return cmd
}

func newApprovalsVote(desk *approvalDesk, choice writv1.ApprovalChoice) *cobra.Command {
	word := map[writv1.ApprovalChoice]string{
		writv1.ApprovalChoice_APPROVAL_CHOICE_APPROVE: "approve", writv1.ApprovalChoice_APPROVAL_CHOICE_DENY: "deny",
	}[choice]
	cmd := &cobra.Command{
		Use:   word + " ID",
		Short: strings.ToUpper(word[:1]) + word[1:] + " a call",
		Long: `The call is shown, and the vote is a signature over exactly what is shown. It counts
once it is recorded. Until an approval is used it can still be denied.`,
		Args: cobra.ExactArgs(1),
	}
	yes := cmd.Flags().BoolP("yes", "y", false, "do not ask")
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return desk.at(cmd.Context(), func(ctx context.Context, a *approver) error {
			approval, err := a.get(ctx, args[0])
			if err != nil {
				return err
			}
			if !*yes {
				if err := a.confirm(cmd, word, approval); err != nil {
					return err
				}
			}
			vote, err := a.key.Vote(approval.GetSubject(), choice)
			if err != nil {
				return err
			}
			response, err := a.client.Vote(ctx, &writv1.VoteRequest{Vote: vote})
			if err != nil {
				return err
			}
			return writeApprovals(cmd.OutOrStdout(), *form, []*writv1.Approval{response.GetApproval()})
		})
	}
	return cmd
}

// confirm shows a call and asks whether it is meant.
func (a *approver) confirm(cmd *cobra.Command, word string, approval *writv1.Approval) error {
	if err := a.write(cmd.ErrOrStderr(), outputText, approval); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "\nType %q to %s this call: ", word, word); err != nil {
		return err
	}
	var answer string
	if _, err := fmt.Fscanln(cmd.InOrStdin(), &answer); err != nil || answer != word {
		return hinted(errors.New("nothing was voted"), "--yes votes without asking")
	}
	return nil
}

func newApprovalsWatch(desk *approvalDesk) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch [ID]",
		Short: "Follow the approvals, or one until it has ended",
		Args:  cobra.MaximumNArgs(1),
	}
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return desk.at(cmd.Context(), func(ctx context.Context, a *approver) error {
			request := &writv1.WatchApprovalsRequest{}
			if len(args) > 0 {
				approval, err := a.get(ctx, args[0])
				if err != nil {
					return err
				}
				request.ApprovalId = approval.GetSubject().GetApprovalId()
			}
			stream, err := a.client.WatchApprovals(ctx, request)
			if err != nil {
				return err
			}
			table := newApprovalTable(cmd.OutOrStdout(), *form)
			for {
				response, err := stream.Recv()
				if errors.Is(err, io.EOF) || ctx.Err() != nil {
					return nil
				}
				if err != nil {
					return err
				}
				if err := table.write(response.GetApproval()); err != nil {
					return err
				}
			}
		})
	}
	return cmd
}

// left says how long an approval may still be used.
func left(approval *writv1.Approval, now time.Time) string {
	return approval.GetSubject().GetRequest().GetExpireTime().AsTime().Sub(now).Round(time.Second).String()
}
