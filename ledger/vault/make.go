// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto/hpke"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"buf.build/go/protovalidate"
	"github.com/google/renameio/v2"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/originals"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Request asks for the keys of so many days of a tenant.
type Request struct {
	Tenant string
	First  originals.Day
	Days   int
	By     string
}

// Make makes the keys that are not there yet, and returns them, by day. They are on the
// disk, and recorded, when it returns. Days that were shredded get none.
func (v *Vault) Make(ctx context.Context, r Request) ([]originals.PublicKey, error) {
	if r.Days < 1 || r.Days > MostDays {
		return nil, fmt.Errorf("%w: keys of 1 to %d days are made at once", ErrInvalid, MostDays)
	}
	if v.kek == nil {
		return nil, fmt.Errorf("%w: none was given", ErrKek)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if before := v.tenant(r.Tenant).before; r.First < before {
		return nil, fmt.Errorf("%w: the days before %s were shredded, and get no keys", ErrInvalid, before)
	}
	body := &writv1.KeyRecord{Act: writv1.KeyAct_KEY_ACT_MADE, Tenant: r.Tenant, By: r.By}
	if err := protovalidate.Validate(body); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var made []originals.PublicKey
	for i := range r.Days {
		day := r.First.Add(i)
		if _, there := v.days[r.Tenant][day]; there {
			continue
		}
		public, err := v.makeKey(ctx, r.Tenant, day)
		if err != nil {
			return nil, fmt.Errorf("make the key of %s: %w", day, err)
		}
		made = append(made, public)
		body.Keys = append(body.Keys, &writv1.DayKey{Day: string(day), PublicKey: public.Bytes[:]})
	}
	if len(made) == 0 {
		return nil, nil
	}
	if err := (ledger.OS{}).SyncDir(filepath.Join(v.dir, "keys")); err != nil {
		return nil, fmt.Errorf("sync the keys: %w", err)
	}
	return made, v.record(ctx, body)
}

// makeKey makes the key of a day, and writes its file.
func (v *Vault) makeKey(ctx context.Context, tenant string, day originals.Day) (originals.PublicKey, error) {
	bytes, private, err := originals.Generate()
	if err != nil {
		return originals.PublicKey{}, err
	}
	public := originals.PublicKey{Tenant: tenant, Day: day, Bytes: bytes}
	raw, err := private.Bytes()
	if err != nil {
		return originals.PublicKey{}, err
	}
	defer clear(raw)
	wrapped, err := v.kek.Wrap(ctx, raw, aboutOf(public))
	if err != nil {
		return originals.PublicKey{}, err
	}
	text, err := canonical.Marshal(&writv1.WrappedDayKey{
		Tenant: tenant, Day: string(day), PublicKey: public.Bytes[:], Kek: v.kek.Name(), Wrapped: wrapped,
	})
	if err != nil {
		return originals.PublicKey{}, err
	}
	return public, renameio.WriteFile(v.path(public.ID()), text, 0o600, renameio.IgnoreUmask())
}

// unwrap opens a private key, which must be the public key's.
func (v *Vault) unwrap(ctx context.Context, public originals.PublicKey, wrapped *writv1.WrappedDayKey) (hpke.PrivateKey, error) {
	if wrapped.GetKek() != v.kek.Name() {
		return nil, fmt.Errorf("%w: it is under %s, not under %s", ErrKek, wrapped.GetKek(), v.kek.Name())
	}
	raw, err := v.kek.Unwrap(ctx, wrapped.GetWrapped(), aboutOf(public))
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	return originals.ParsePrivate(raw, public.Bytes)
}

// record appends what was done, and applies it. The caller holds mu.
func (v *Vault) record(ctx context.Context, body *writv1.KeyRecord) error {
	if err := protovalidate.Validate(body); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	_, err := v.ledger.Append(context.WithoutCancel(ctx), ledger.Entry{
		Kind: writv1.RecordKind_RECORD_KIND_KEY, Tenant: body.GetTenant(), Body: body,
	}, writv1.Durability_DURABILITY_NODE)
	if err != nil {
		return fmt.Errorf("record what is done with keys: %w", err)
	}
	return v.take(body)
}

// Shred destroys the keys of a tenant's days before a day, and returns how many there
// were. It is recorded first: what was begun is finished when the vault is opened again. A
// day after that of the last key is refused: the days up to it could get no keys any more.
func (v *Vault) Shred(ctx context.Context, tenant string, before originals.Day, by, why string) (int, error) {
	v.mu.Lock()
	count, err := v.shreddable(tenant, before)
	if err != nil {
		v.mu.Unlock()
		return 0, err
	}
	err = v.record(ctx, &writv1.KeyRecord{
		Act: writv1.KeyAct_KEY_ACT_SHREDDED, Tenant: tenant, Before: string(before), By: by, Why: why,
		Shredded: uint32(count), //nolint:gosec // not negative
	})
	v.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return count, v.destroy()
}

// shreddable is how many keys a tenant has of the days before a day, or why they are not
// shredded. The caller holds mu.
func (v *Vault) shreddable(tenant string, before originals.Day) (int, error) {
	count, last := 0, originals.Day("")
	for day := range v.days[tenant] {
		last = max(last, day)
		if day < before && day >= v.tenants[tenant].before {
			count++
		}
	}
	switch {
	case last == "":
		return 0, fmt.Errorf("%w: there are no keys of the tenant %q", ErrInvalid, tenant)
	case v.tenants[tenant].held:
		return 0, ErrHeld
	case before > last.Add(1):
		return 0, fmt.Errorf("%w: the last key is of %s: shred the days before %s at most", ErrInvalid, last, last.Add(1))
	}
	return count, nil
}

// destroy deletes the files of the keys that were shredded.
func (v *Vault) destroy() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var errs []error
	for id, key := range v.keys {
		if v.shredded(key) {
			errs = append(errs, erase(v.path(id)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("the keys are recorded as shredded, and not all are destroyed yet: %w", err)
	}
	return (ledger.OS{}).SyncDir(filepath.Join(v.dir, "keys"))
}

// erase overwrites a file with zeros, and deletes it. It may be gone.
func erase(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0) //nolint:gosec // the directory is the caller's
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil {
		_, err = file.Write(make([]byte, info.Size()))
	}
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Remove(path)
}

// Hold puts a tenant under a legal hold: its keys are not shredded until [Vault.Release].
func (v *Vault) Hold(ctx context.Context, tenant, by, why string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.tenant(tenant).held {
		return ErrHeld
	}
	return v.record(ctx, &writv1.KeyRecord{Act: writv1.KeyAct_KEY_ACT_HELD, Tenant: tenant, By: by, Why: why})
}

// Release releases a tenant's legal hold.
func (v *Vault) Release(ctx context.Context, tenant, by, why string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.tenant(tenant).held {
		return ErrNotHeld
	}
	return v.record(ctx, &writv1.KeyRecord{Act: writv1.KeyAct_KEY_ACT_RELEASED, Tenant: tenant, By: by, Why: why})
}

// MostWindow bounds a retention window, in days.
const MostWindow = 36500

// Retain sets a tenant's retention window: for how many days before today its keys are
// kept; nil, for ever. It shreds nothing: whoever keeps the time calls [Vault.Shred] with
// what is [Tenant.Due].
func (v *Vault) Retain(ctx context.Context, tenant string, days *uint32, by, why string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.record(ctx, &writv1.KeyRecord{Act: writv1.KeyAct_KEY_ACT_RETENTION, Tenant: tenant, Days: days, By: by, Why: why})
}
