// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/originals"
	"github.com/writ-dev/writ/ledger/vault"
	"github.com/writ-dev/writ/ledger/vault/awskms"
)

func newKeys() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make, list and shred the keys to which originals are sealed",
		Long: `Keys works on a vault: the directory in which whoever may open originals keeps the
private keys, one for each tenant and day, under a key encryption key. Agents have the
public keys alone. What was sealed to a key that is shredded is unreadable, everywhere; what
was recorded verifies as before. Everything that is done is recorded in the vault's own
ledger ("writ records list --ledger VAULT/ledger").`,
	}
	at := &vaultFlags{}
	at.add(cmd.PersistentFlags())
	cmd.AddCommand(newKeysMake(at), newKeysPublic(at), newKeysList(at), newKeysShred(at), newKeysRetain(at), newKeysSweep(at), newKeysHold(at), newKeysRelease(at))
	return cmd
}

// vaultFlags say where a vault is, and what its keys are under.
type vaultFlags struct{ dir, kek string }

func (f *vaultFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.dir, "vault", os.Getenv("WRIT_VAULT"), "directory of the vault (WRIT_VAULT)")
	flags.StringVar(&f.kek, "kek", os.Getenv("WRIT_KEK"), "key encryption key: file:PATH, or aws-kms: and a key's id, ARN or alias (WRIT_KEK)")
}

// where is the vault's directory.
func (f *vaultFlags) where() (string, error) {
	if f.dir == "" {
		return "", hinted(errors.New("nothing says where the vault is"), "give --vault DIR; \"writ keys make\" makes one")
	}
	return f.dir, nil
}

// open opens the vault to change it.
func (f *vaultFlags) open(kek vault.Wrapper) (*vault.Vault, error) {
	dir, err := f.where()
	if err != nil {
		return nil, err
	}
	v, err := vault.Open(dir, kek)
	if errors.Is(err, ledger.ErrLocked) {
		return nil, hinted(err, "another \"writ keys\" is at work in %s; wait until it has ended", dir)
	}
	return v, err
}

// view opens the vault to read it.
func (f *vaultFlags) view(kek vault.Wrapper) (*vault.Vault, error) {
	dir, err := f.where()
	if err != nil {
		return nil, err
	}
	v, err := vault.View(dir, kek)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hinted(err, "\"writ keys make\" makes a vault")
	}
	return v, err
}

// wrapper returns the key encryption key.
func (f *vaultFlags) wrapper(ctx context.Context) (vault.Wrapper, error) {
	where, name, _ := strings.Cut(f.kek, ":")
	switch {
	case where == "file" && name != "":
		kek, err := vault.ReadFileKek(name)
		if err != nil {
			return nil, err
		}
		return kek, nil
	case where == "aws-kms" && name != "":
		kek, err := awskms.Open(ctx, name)
		if err != nil {
			return nil, hinted(err, "region, credentials and endpoint are those of the AWS SDK, such as AWS_REGION and AWS_PROFILE")
		}
		return kek, nil
	default:
		return nil, hinted(errors.New("nothing says under which key the vault's keys are"), "give --kek file:PATH, or --kek aws-kms:KEY")
	}
}

// makeWrapper returns the key encryption key, and makes one in a file that is not there.
func (f *vaultFlags) makeWrapper(ctx context.Context, stderr io.Writer) (vault.Wrapper, error) {
	if path, ok := strings.CutPrefix(f.kek, "file:"); ok {
		switch err := vault.MakeFileKek(path); {
		case err == nil:
			fmt.Fprintf(stderr, "writ: note: %s is a new key encryption key: keep it apart from the vault, and from the vault's backups\n", path)
		case !errors.Is(err, fs.ErrExist):
			return nil, err
		}
	}
	return f.wrapper(ctx)
}

// making opens the vault, which it makes if it is not there, for one change.
func (f *vaultFlags) making(kek vault.Wrapper, change func(*vault.Vault) error) error {
	v, err := f.open(kek)
	if err != nil {
		return err
	}
	return errors.Join(change(v), v.Close())
}

// changing opens a vault that is there for one change.
func (f *vaultFlags) changing(change func(*vault.Vault) error) error {
	if _, err := f.view(nil); err != nil {
		return err
	}
	return f.making(nil, change)
}

// keyAct says who does something to keys, and why.
type keyAct struct{ tenant, by, why string }

func (a *keyAct) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.tenant, "tenant", "", "whose keys (\"\": those of principals without a tenant)")
	_ = cmd.MarkFlagRequired("tenant")
	cmd.Flags().StringVar(&a.by, "by", whoami(), "who does it, for the record")
	cmd.Flags().StringVar(&a.why, "why", "", "why, for the record")
}

// whoami is who runs the command, as the machine says.
func whoami() string {
	name, host := "somebody", "somewhere"
	if who, err := user.Current(); err == nil && who.Username != "" {
		name = who.Username
	}
	if at, err := os.Hostname(); err == nil && at != "" {
		host = at
	}
	return name + "@" + host
}

func newKeysMake(at *vaultFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "make --tenant TENANT",
		Short: "Make a tenant's keys of days to come, and print the public ones",
		Long: `Make makes the keys of a tenant that are not there yet, from a day on, and prints the
public ones: append them to the agents' originals_keys_file. The vault is made if it is not
there, and so is the file of a key encryption key.`,
		Example: `  writ keys make --vault vault --kek file:kek.key --tenant acme --days 400 >> originals.keys`,
		Args:    cobra.NoArgs,
	}
	act := &keyAct{}
	act.add(cmd)
	first := cmd.Flags().String("from", "", "the first day, such as 2026-01-31 (default: today, UTC)")
	days := cmd.Flags().Int("days", 400, fmt.Sprintf("of how many days, at most %d", vault.MostDays))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		day, err := dayOr(*first, originals.DayOf(time.Now()))
		if err != nil {
			return err
		}
		if _, err := at.where(); err != nil {
			return err
		}
		kek, err := at.makeWrapper(cmd.Context(), cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		return at.making(kek, func(v *vault.Vault) error {
			made, err := v.Make(cmd.Context(), vault.Request{Tenant: act.tenant, First: day, Days: *days, By: act.by})
			if err != nil {
				return err
			}
			return printPublic(cmd.OutOrStdout(), made)
		})
	}
	return cmd
}

// dayOr reads a day, or takes another where none is given.
func dayOr(text string, otherwise originals.Day) (originals.Day, error) {
	if text == "" {
		return otherwise, nil
	}
	return originals.ParseDay(text)
}

func printPublic(w io.Writer, keys []originals.PublicKey) error {
	for i := range keys {
		if _, err := fmt.Fprintln(w, keys[i].String()); err != nil {
			return err
		}
	}
	return nil
}

func newKeysPublic(at *vaultFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "public",
		Short: "Print all public keys that are not shredded, for the agents' originals_keys_file",
		Args:  cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v, err := at.view(nil)
		if err != nil {
			return err
		}
		return printPublic(cmd.OutOrStdout(), v.Public())
	}
	return cmd
}

// keysOf is a tenant's keys, as JSON.
type keysOf struct {
	Tenant         string        `json:"tenant"`
	First          originals.Day `json:"first,omitempty"`
	Last           originals.Day `json:"last,omitempty"`
	Keys           int           `json:"keys"`
	ShreddedBefore originals.Day `json:"shredded_before,omitempty"`
	Held           bool          `json:"held"`
	Window         *uint32       `json:"window_days,omitempty"`
}

func newKeysList(at *vaultFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tenants with the days of their keys",
		Args:  cobra.NoArgs,
	}
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v, err := at.view(nil)
		if err != nil {
			return err
		}
		views := []keysOf{}
		for _, t := range v.Tenants() {
			views = append(views, keysOf(t))
		}
		if *form == outputJSON {
			return printJSON(cmd.OutOrStdout(), views)
		}
		table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "TENANT\tKEYS\tFIRST\tLAST\tSHREDDED BEFORE\tWINDOW\tLEGAL HOLD")
		for _, t := range views {
			held, window := "-", "-"
			if t.Held {
				held = "held"
			}
			if t.Window != nil {
				window = fmt.Sprintf("%d days", *t.Window)
			}
			fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", or(query.Printable(t.Tenant), "-"), t.Keys, or(t.First, "-"), or(t.Last, "-"), or(t.ShreddedBefore, "-"), window, held)
		}
		return table.Flush()
	}
	return cmd
}
