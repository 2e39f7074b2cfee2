// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-dev/writ/ledger/originals"
	"github.com/writ-dev/writ/ledger/vault"
)

func newKeysShred(at *vaultFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "shred --tenant TENANT --before DAY",
		Short: "Destroy the keys of a tenant's days before a day: what was sealed to them is unreadable",
		Long: `Shred destroys the keys of a tenant's days before a day (UTC), for good. It is recorded,
and then done; what was interrupted is finished by the next command that changes the vault.
It is refused while the tenant is under a legal hold.`,
		Example: `  writ keys shred --vault vault --tenant acme --before 2026-01-01 --why "request 4711"`,
		Args:    cobra.NoArgs,
	}
	act := &keyAct{}
	act.add(cmd)
	before := cmd.Flags().String("before", "", "the first day that is kept, such as 2026-01-31")
	_ = cmd.MarkFlagRequired("before")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		day, err := originals.ParseDay(*before)
		if err != nil {
			return err
		}
		return at.changing(func(v *vault.Vault) error {
			return shred(cmd, v, act, day)
		})
	}
	return cmd
}

// shred destroys the keys of a tenant's days before a day, and says how many.
func shred(cmd *cobra.Command, v *vault.Vault, act *keyAct, before originals.Day) error {
	n, err := v.Shred(cmd.Context(), act.tenant, before, act.by, act.why)
	if errors.Is(err, vault.ErrHeld) {
		return hinted(err, "\"writ keys release\" releases it")
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "shredded  the keys of %q before %s: %d\n", act.tenant, before, n)
	return err
}

func newKeysRetain(at *vaultFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "retain --tenant TENANT {--days DAYS | --for-ever}",
		Short: "Set a tenant's retention window",
		Long: `Retain sets for how many days before today the keys of a tenant are kept. "writ keys sweep"
shreds what is older: run it every day.`,
		Args: cobra.NoArgs,
	}
	act := &keyAct{}
	act.add(cmd)
	days := cmd.Flags().Uint32("days", 0, fmt.Sprintf("days before today, at most %d", vault.MostWindow))
	cmd.Flags().Bool("for-ever", false, "no window any more")
	cmd.MarkFlagsOneRequired("days", "for-ever")
	cmd.MarkFlagsMutuallyExclusive("days", "for-ever")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		window := days
		said := fmt.Sprintf("for %d days", *days)
		if !cmd.Flags().Changed("days") {
			window, said = nil, "for ever"
		}
		return at.changing(func(v *vault.Vault) error {
			if err := v.Retain(cmd.Context(), act.tenant, window, act.by, act.why); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "retained  the keys of %q %s\n", act.tenant, said)
			return err
		})
	}
	return cmd
}

func newKeysSweep(at *vaultFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sweep",
		Short: "Shred the keys that are older than their tenants' retention windows",
		Long: `Sweep shreds, for every tenant with a retention window, the keys of the days before it. A
tenant under a legal hold is passed over, and it is said so.`,
		Args: cobra.NoArgs,
	}
	by := cmd.Flags().String("by", whoami(), "who does it, for the record")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		today := originals.DayOf(time.Now())
		return at.changing(func(v *vault.Vault) error {
			for _, t := range v.Tenants() {
				before, ok := t.Due(today)
				switch {
				case !ok || t.First == "" || t.First >= before:
				case t.Held:
					fmt.Fprintf(cmd.ErrOrStderr(), "writ: note: the tenant %q is under a legal hold: its keys before %s are kept\n", t.Tenant, before)
				default:
					before = min(before, t.Last.Add(1))
					act := &keyAct{tenant: t.Tenant, by: *by, why: fmt.Sprintf("retention of %d days", *t.Window)}
					if err := shred(cmd, v, act, before); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return cmd
}

func newKeysHold(at *vaultFlags) *cobra.Command {
	return newKeysAct(at, &cobra.Command{
		Use:   "hold --tenant TENANT",
		Short: "Put a tenant under a legal hold: its keys are not shredded until it is released",
	}, func(ctx context.Context, v *vault.Vault, act *keyAct) error {
		return v.Hold(ctx, act.tenant, act.by, act.why)
	}, "held")
}

func newKeysRelease(at *vaultFlags) *cobra.Command {
	return newKeysAct(at, &cobra.Command{
		Use:   "release --tenant TENANT",
		Short: "Release a tenant's legal hold",
	}, func(ctx context.Context, v *vault.Vault, act *keyAct) error {
		return v.Release(ctx, act.tenant, act.by, act.why)
	}, "released")
}

// newKeysAct makes a command that does something to all keys of a tenant.
func newKeysAct(at *vaultFlags, cmd *cobra.Command, do func(context.Context, *vault.Vault, *keyAct) error, done string) *cobra.Command {
	act := &keyAct{}
	act.add(cmd)
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return at.changing(func(v *vault.Vault) error {
			if err := do(cmd.Context(), v, act); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s  the keys of %q\n", done, act.tenant)
			return err
		})
	}
	return cmd
}
