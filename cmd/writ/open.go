// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
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
		Long: `Open opens the values that were kept out of the records of a decision and its outcome,
with the private keys of their tenant and days from a vault. It prints a value only after it
has held it against the commitment in the record, with the salt that proves this one value
to whoever has the record ("writ records prove"). It exits with 1 when there is nothing to
open, or a key was shredded.`,
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
		records, err := from.keepers(cmd.Context(), cmd.ErrOrStderr(), args[0])
		if err != nil {
			return err
		}
		opened, err := openAll(cmd.Context(), cmd.ErrOrStderr(), opener, records)
		if len(opened) == 0 {
			return cmp.Or(err, errNo)
		}
		return errors.Join(printOpened(cmd.OutOrStdout(), *form, opened), err)
	}
	return cmd
}

// openAll opens what is sealed in a decision's records, and says of each that holds
// something, or was asked to, why it does not open. Its error is errNo where one does not.
func openAll(ctx context.Context, stderr io.Writer, opener *originals.Opener, records []keeper) ([]openedRecord, error) {
	var opened []openedRecord
	var no error
	for _, k := range records {
		values, err := opener.Open(ctx, k.record)
		switch {
		case errors.Is(err, originals.ErrNone) && k.record.GetSealed() == nil:
		case errors.Is(err, originals.ErrNone), errors.Is(err, originals.ErrShredded), errors.Is(err, originals.ErrNoKey):
			fmt.Fprintf(stderr, "writ: error: record %d: %v%s\n", k.record.GetIndex(), err, gapText(k.record))
			no = errNo
		case err != nil:
			return nil, fmt.Errorf("open record %d: %w", k.record.GetIndex(), err)
		default:
			opened = append(opened, openedRecord{keeper: k, values: values})
		}
	}
	if len(opened) == 0 && no == nil {
		fmt.Fprintf(stderr, "writ: error: %v\n", originals.ErrNone)
	}
	return opened, no
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

// keeper is a record that may hold originals: a decision's, or its outcome's.
type keeper struct {
	record *writv1.Record
	origin string
}

// commitsTo says whether the record has a commitment to the value of a path.
func (k keeper) commitsTo(path string) bool {
	return slices.ContainsFunc(k.record.GetCommitments(), func(c *writv1.Commitment) bool { return c.GetPath() == path })
}

// openedRecord is a record whose originals were opened.
type openedRecord struct {
	keeper
	values []originals.Value
}

// keepers reads the records of a decision and its outcome.
func (s *recordSource) keepers(ctx context.Context, stderr io.Writer, id string) ([]keeper, error) {
	reader, closer, err := s.open()
	if err != nil {
		return nil, s.advise(err)
	}
	defer closer.Close() //nolint:errcheck // read only
	records, err := reader.Get(ctx, strings.ToLower(id))
	if part := s.complete(stderr, reader); part != nil {
		return nil, s.advise(part)
	}
	if errors.Is(err, query.ErrInvalid) {
		return nil, hinted(fmt.Errorf("%q is no id of a decision", id), "it has 32 hexadecimal digits: \"writ records list\" prints it")
	}
	if err != nil && !errors.Is(err, query.ErrNotFound) {
		return nil, s.advise(err)
	}
	var found []keeper
	for _, stored := range records {
		record := &writv1.Record{}
		if err := canonical.Unmarshal(stored.GetRecord(), record); err != nil {
			return nil, fmt.Errorf("read a record: %w", err)
		}
		if kind := record.GetKind(); kind == writv1.RecordKind_RECORD_KIND_DECISION || kind == writv1.RecordKind_RECORD_KIND_OUTCOME {
			found = append(found, keeper{record: record, origin: stored.GetOrigin()})
		}
	}
	if len(found) == 0 {
		fmt.Fprintf(stderr, "writ: error: nothing is recorded of decision %s\n", id)
		return nil, errNo
	}
	return found, nil
}

func printOpened(w io.Writer, form output, opened []openedRecord) error {
	views := []openedValue{}
	for _, o := range opened {
		for i, value := range o.values {
			views = append(views, openedValue{
				Ledger: o.origin, Index: o.record.GetIndex(), Path: value.Path, Value: string(value.JSON),
				Salt: hex.EncodeToString(value.Salt), Commitment: hex.EncodeToString(o.record.GetCommitments()[i].GetDigest()),
			})
		}
	}
	if form == outputJSON {
		return printJSON(w, views)
	}
	for _, o := range opened {
		fmt.Fprintf(w, "record %d of %s, sealed to the key of %s\n", o.record.GetIndex(), query.Printable(o.origin), query.Printable(o.record.GetSealed().GetDay()))
		for _, v := range o.values {
			if _, err := fmt.Fprintf(w, "%s = %s\n  verified against its commitment; salt %x\n", query.Printable(v.Path), query.Printable(string(v.JSON)), v.Salt); err != nil {
				return err
			}
		}
	}
	return nil
}

func newRecordsProve(from *recordSource) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prove DECISION_ID --path PATH --value JSON --salt HEX",
		Short: "Hold a value and its salt against the commitment in a record of a decision",
		Long: `Prove says whether a value that was kept out of a decision's record, or its outcome's, is
the one that somebody shows, with its salt: "writ records open" prints both. It needs no key. It exits
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
		records, err := from.keepers(cmd.Context(), cmd.ErrOrStderr(), args[0])
		if err != nil {
			return err
		}
		k := records[0]
		if at := slices.IndexFunc(records, func(k keeper) bool { return k.commitsTo(*path) }); at > 0 {
			k = records[at]
		}
		if err := ledger.VerifyDisclosure(k.record, *path, []byte(*value), raw); err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "writ: error: %v\n", err)
			return errNo
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "proved  %s of record %d of %s is the value that is shown\n", query.Printable(*path), k.record.GetIndex(), query.Printable(k.origin))
		return err
	}
	return cmd
}
