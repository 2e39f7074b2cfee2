// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/originals"
	"github.com/writ-dev/writ/proto/canonical"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// origin is the first part of the name of a vault's ledger.
const origin = "writ.local/vault"

// MostDays bounds the keys that are made at once: their record has 65,535 bytes.
const MostDays = 800

// What a vault refuses.
var (
	// ErrHeld says that a tenant is under a legal hold.
	ErrHeld = errors.New("the tenant is under a legal hold")
	// ErrNotHeld says that there is no hold to release.
	ErrNotHeld = errors.New("the tenant is under no legal hold")
	// ErrInvalid says that what is asked for is not one that a vault does.
	ErrInvalid = errors.New("not valid")
	// ErrKek says that the key encryption key is not the one that a key is under.
	ErrKek = errors.New("another key encryption key")
)

// Vault holds private keys. Its methods may be called by several goroutines.
type Vault struct {
	dir    string
	ledger *ledger.Ledger // nil in a view
	kek    Wrapper        // may be nil: no private key is opened then

	// mu guards what follows, the fold over the ledger, and that what is recorded follows
	// from it.
	mu      sync.Mutex
	keys    map[[32]byte]originals.PublicKey
	days    map[string]map[originals.Day][32]byte // the keys' ids, by tenant
	tenants map[string]*tenant
}

// tenant is what stands of a tenant.
type tenant struct {
	// before is the first day that is not shredded; empty, none is.
	before originals.Day
	held   bool
	// window is for how many days before today keys are kept; nil, for ever.
	window *uint32
}

func newVault(dir string, kek Wrapper) *Vault {
	return &Vault{
		dir: dir, kek: kek, keys: make(map[[32]byte]originals.PublicKey),
		days: make(map[string]map[originals.Day][32]byte), tenants: make(map[string]*tenant),
	}
}

// Open opens the vault in a directory for one process, or makes one, with mode 0700. What
// an earlier process had begun to shred is shredded. kek may be nil where no private key is
// made or opened.
func Open(dir string, kek Wrapper) (*Vault, error) {
	if err := os.MkdirAll(filepath.Join(dir, "keys"), 0o700); err != nil {
		return nil, fmt.Errorf("make the vault: %w", err)
	}
	if err := (ledger.OS{}).SyncDir(dir); err != nil {
		return nil, fmt.Errorf("make the vault: %w", err)
	}
	v := newVault(dir, kek)
	l, recovery, err := ledger.Open(ledger.Options{Dir: filepath.Join(dir, "ledger"), Origin: origin, OnRecord: v.fold})
	if err != nil {
		return nil, fmt.Errorf("open the vault's ledger: %w", err)
	}
	v.ledger = l
	_, err = l.Append(context.Background(), ledger.Entry{Kind: writv1.RecordKind_RECORD_KIND_START, Body: &writv1.StartRecord{
		Origin: recovery.Origin, RecoveredSize: recovery.Size, RecoveredRoot: recovery.Root, LostBytes: uint64(max(recovery.LostBytes, 0)),
	}}, writv1.Durability_DURABILITY_NODE)
	if err == nil {
		err = v.destroy()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the vault: %w", err), l.Close(nil))
	}
	return v, nil
}

// View opens the vault in a directory beside whoever writes it, to read. It changes nothing.
func View(dir string, kek Wrapper) (*Vault, error) {
	at := filepath.Join(dir, "ledger")
	text, err := os.ReadFile(filepath.Join(at, "log.vkey")) //nolint:gosec // the directory is the caller's
	if err != nil {
		return nil, fmt.Errorf("read the vault: %w", err)
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("read the vault's public key: %w", err)
	}
	v, id := newVault(dir, kek), ledger.LogID(verifier.Name())
	err = ledger.NewDirReader(at, verifier).Read(func(index uint64, raw []byte) error {
		record, err := ledger.CheckRecord(raw, id, index)
		if err != nil {
			return err
		}
		return v.fold(record)
	})
	if err != nil {
		return nil, fmt.Errorf("read the vault's ledger: %w", err)
	}
	return v, nil
}

// Close gives the vault free.
func (v *Vault) Close() error {
	if v.ledger == nil {
		return nil
	}
	return v.ledger.Close(&writv1.EndRecord{})
}

// fold takes a record of the vault's ledger.
func (v *Vault) fold(r *writv1.Record) error {
	if r.GetKind() != writv1.RecordKind_RECORD_KIND_KEY {
		return nil
	}
	body := &writv1.KeyRecord{}
	if err := canonical.Unmarshal(r.GetBody(), body); err != nil {
		return fmt.Errorf("fold record %d: %w", r.GetIndex(), err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.take(body)
}

// take applies a record. The caller holds mu.
func (v *Vault) take(body *writv1.KeyRecord) error {
	of := v.tenant(body.GetTenant())
	switch body.GetAct() {
	case writv1.KeyAct_KEY_ACT_MADE:
		for _, key := range body.GetKeys() {
			if len(key.GetPublicKey()) != 32 {
				return fmt.Errorf("%w: a public key of %d bytes", ErrInvalid, len(key.GetPublicKey()))
			}
			public := originals.PublicKey{Tenant: body.GetTenant(), Day: originals.Day(key.GetDay()), Bytes: [32]byte(key.GetPublicKey())}
			v.keys[public.ID()] = public
			if v.days[public.Tenant] == nil {
				v.days[public.Tenant] = make(map[originals.Day][32]byte)
			}
			v.days[public.Tenant][public.Day] = public.ID()
		}
	case writv1.KeyAct_KEY_ACT_SHREDDED:
		of.before = max(of.before, originals.Day(body.GetBefore()))
	case writv1.KeyAct_KEY_ACT_HELD:
		of.held = true
	case writv1.KeyAct_KEY_ACT_RELEASED:
		of.held = false
	case writv1.KeyAct_KEY_ACT_RETENTION:
		of.window = body.Days
	default:
		return fmt.Errorf("%w: the act %d of a key", ErrInvalid, body.GetAct())
	}
	return nil
}

// tenant returns what stands of a tenant. The caller holds mu.
func (v *Vault) tenant(name string) *tenant {
	if v.tenants[name] == nil {
		v.tenants[name] = &tenant{}
	}
	return v.tenants[name]
}

// shredded says whether a key was. The caller holds mu.
func (v *Vault) shredded(key originals.PublicKey) bool {
	return key.Day < v.tenant(key.Tenant).before
}

// Tenant is a tenant's keys.
type Tenant struct {
	Tenant string
	// First and Last are the first and the last day that has a key; empty where none has.
	First, Last originals.Day
	// Keys is how many keys there are.
	Keys int
	// ShreddedBefore is the first day that is not shredded; empty, none is.
	ShreddedBefore originals.Day
	// Held says that the tenant is under a legal hold.
	Held bool
	// Window is for how many days before today keys are kept; nil, for ever.
	Window *uint32
}

// Due returns the first day that the tenant's retention window keeps, seen from a day;
// false where it has none.
func (t *Tenant) Due(today originals.Day) (originals.Day, bool) {
	if t.Window == nil {
		return "", false
	}
	return today.Add(-int(*t.Window)), true
}

// Tenants returns what stands of each tenant, by name.
func (v *Vault) Tenants() []Tenant {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []Tenant
	for name, of := range v.tenants {
		t := Tenant{Tenant: name, ShreddedBefore: of.before, Held: of.held, Window: of.window}
		for day := range v.days[name] {
			if day < of.before {
				continue
			}
			t.Keys++
			t.Last = max(t.Last, day)
			if t.First == "" || day < t.First {
				t.First = day
			}
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Tenant) int { return strings.Compare(a.Tenant, b.Tenant) })
	return out
}

// Public returns the public keys that are not shredded, by tenant and day.
func (v *Vault) Public() []originals.PublicKey {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []originals.PublicKey
	for _, key := range v.keys {
		if !v.shredded(key) {
			out = append(out, key)
		}
	}
	slices.SortFunc(out, func(a, b originals.PublicKey) int {
		if a.Tenant != b.Tenant {
			return strings.Compare(a.Tenant, b.Tenant)
		}
		return strings.Compare(string(a.Day), string(b.Day))
	})
	return out
}

// Private returns the private key of an id.
func (v *Vault) Private(ctx context.Context, id [32]byte) (originals.Private, error) {
	v.mu.Lock()
	public, ok := v.keys[id]
	gone := ok && v.shredded(public)
	v.mu.Unlock()
	switch {
	case !ok:
		return originals.Private{}, originals.ErrNoKey
	case gone:
		return originals.Private{}, originals.ErrShredded
	case v.kek == nil:
		return originals.Private{}, fmt.Errorf("%w: none was given", ErrKek)
	}
	wrapped, err := v.read(id)
	if err != nil {
		return originals.Private{}, err
	}
	private, err := v.unwrap(ctx, public, wrapped)
	if err != nil {
		return originals.Private{}, fmt.Errorf("open the key of %s: %w", public.Day, err)
	}
	return originals.Private{Tenant: public.Tenant, Day: public.Day, Key: private}, nil
}

// path is where a key's file is.
func (v *Vault) path(id [32]byte) string {
	return filepath.Join(v.dir, "keys", fmt.Sprintf("%x.key", id))
}

// maxKeyFile bounds the file of a key.
const maxKeyFile = 16 << 10

func (v *Vault) read(id [32]byte) (*writv1.WrappedDayKey, error) {
	info, err := os.Stat(v.path(id))
	if err == nil && info.Size() > maxKeyFile {
		return nil, fmt.Errorf("the file of a key has more than %d bytes", maxKeyFile)
	}
	var raw []byte
	if err == nil {
		raw, err = os.ReadFile(v.path(id))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: its file is not there, and nothing says that it was shredded", originals.ErrNoKey)
	}
	if err != nil {
		return nil, fmt.Errorf("read the file of a key: %w", err)
	}
	wrapped := &writv1.WrappedDayKey{}
	if err := canonical.Unmarshal(raw, wrapped); err != nil {
		return nil, fmt.Errorf("read the file of a key: %w", err)
	}
	return wrapped, nil
}
