// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/originals"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// openedValue is a value that was kept out of a record, with what proves it to others.
type openedValue struct {
	Ledger     string `json:"ledger"`
	Index      uint64 `json:"index"`
	Path       string `json:"path"`
	Value      string `json:"value"`
	Salt       string `json:"salt"`
	Commitment string `json:"commitment"`
}

func newRecordsOpen(from *recordSource) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "open DECISION_ID",
		Short: "Open the sealed originals of a decision, and hold each against its commitment",
		Long: `Open opens the values that were kept out of a decision's record, with the private key of
its tenant and day from a vault. It prints a value only after it has held it against the
commitment in the record, with the salt that proves this one value to whoever has the record
("writ records prove"). It exits with 1 when there is nothing to open, or the key was shredded.`,
		Args: cobra.ExactArgs(1),
	}
	at := &vaultFlags{}
	at.add(cmd.Flags())
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		opener, err := at.opener(cmd.Context())
		if err != nil {
			return err
		}
		record, stored, err := from.decision(cmd.Context(), cmd.ErrOrStderr(), args[0])
		if err != nil {
			return err
		}
		values, err := opener.Open(cmd.Context(), record)
		switch {
		case errors.Is(err, originals.ErrNone), errors.Is(err, originals.ErrShredded), errors.Is(err, originals.ErrNoKey):
			fmt.Fprintf(cmd.ErrOrStderr(), "writ: error: decision %s: %v%s\n", args[0], err, gapText(record))
			return errNo
		case err != nil:
			return fmt.Errorf("open decision %s: %w", args[0], err)
		}
		return printOpened(cmd.OutOrStdout(), *form, stored, record, values)
	}
	return cmd
}

// opener opens originals with the vault's keys.
func (f *vaultFlags) opener(ctx context.Context) (*originals.Opener, error) {
	kek, err := f.wrapper(ctx)
	if err != nil {
		return nil, err
	}
	v, err := f.view(kek)
	if err != nil {
		return nil, err
	}
	return originals.NewOpener(v), nil
}

// gapText says why a record has no originals that its tool asks to have kept.
func gapText(record *writv1.Record) string {
	switch record.GetSealed().GetGap() {
	case writv1.OriginalsGap_ORIGINALS_GAP_NO_KEY:
		return ": the agent had no public key of the tenant and day"
	case writv1.OriginalsGap_ORIGINALS_GAP_TOO_LARGE:
		return ": they were too large"
	default:
		return ""
	}
}

// decision reads the record of a decision.
func (s *recordSource) decision(ctx context.Context, stderr io.Writer, id string) (*writv1.Record, *writv1.StoredRecord, error) {
	reader, closer, err := s.open()
	if err != nil {
		return nil, nil, s.advise(err)
	}
	defer closer.Close() //nolint:errcheck // read only
	records, err := reader.Get(ctx, strings.ToLower(id))
	if part := s.complete(stderr, reader); part != nil {
		return nil, nil, s.advise(part)
	}
	if errors.Is(err, query.ErrInvalid) {
		return nil, nil, hinted(fmt.Errorf("%q is no id of a decision", id), "it has 32 hexadecimal digits: \"writ records list\" prints it")
	}
	if err != nil && !errors.Is(err, query.ErrNotFound) {
		return nil, nil, s.advise(err)
	}
	for _, stored := range records {
		record := &writv1.Record{}
		if err := canonical.Unmarshal(stored.GetRecord(), record); err != nil {
			return nil, nil, fmt.Errorf("read a record: %w", err)
		}
		if record.GetKind() == writv1.RecordKind_RECORD_KIND_DECISION {
			return record, stored, nil
		}
	}
	fmt.Fprintf(stderr, "writ: error: nothing is recorded of decision %s\n", id)
	return nil, nil, errNo
}

func printOpened(w io.Writer, form output, stored *writv1.StoredRecord, record *writv1.Record, values []originals.Value) error {
	views := make([]openedValue, len(values))
	for i, value := range values {
		views[i] = openedValue{
			Ledger: stored.GetOrigin(), Index: record.GetIndex(), Path: value.Path, Value: string(value.JSON),
			Salt: hex.EncodeToString(value.Salt), Commitment: hex.EncodeToString(record.GetCommitments()[i].GetDigest()),
		}
	}
	if form == outputJSON {
		return printJSON(w, views)
	}
	fmt.Fprintf(w, "record %d of %s, sealed to the key of %s\n", record.GetIndex(), query.Printable(stored.GetOrigin()), query.Printable(record.GetSealed().GetDay()))
	for _, v := range views {
		if _, err := fmt.Fprintf(w, "%s = %s\n  verified against its commitment; salt %s\n", query.Printable(v.Path), query.Printable(v.Value), v.Salt); err != nil {
			return err
		}
	}
	return nil
}

func newRecordsProve(from *recordSource) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prove DECISION_ID --path PATH --value JSON --salt HEX",
		Short: "Hold a value and its salt against the commitment in a decision's record",
		Long: `Prove says whether a value that was kept out of a decision's record is the one that
somebody shows, with its salt: "writ records open" prints both. It needs no key. It exits
with 1 when the value is another.`,
		Args: cobra.ExactArgs(1),
	}
	path := cmd.Flags().String("path", "", "path of the value, such as arguments.iban")
	value := cmd.Flags().String("value", "", "the value in canonical JSON, such as '\"DE02\"'")
	salt := cmd.Flags().String("salt", "", "the salt of the path, in hexadecimal")
	for _, flag := range []string{"path", "value", "salt"} {
		_ = cmd.MarkFlagRequired(flag)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		raw, err := hex.DecodeString(*salt)
		if err != nil {
			return errors.New("--salt is not in hexadecimal")
		}
		record, stored, err := from.decision(cmd.Context(), cmd.ErrOrStderr(), args[0])
		if err != nil {
			return err
		}
		if err := ledger.VerifyDisclosure(record, *path, []byte(*value), raw); err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "writ: error: %v\n", err)
			return errNo
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "proved  %s of record %d of %s is the value that is shown\n", query.Printable(*path), record.GetIndex(), query.Printable(stored.GetOrigin()))
		return err
	}
	return cmd
}
