// SPDX-License-Identifier: Apache-2.0

package sessions_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/atoms"
	"github.com/writ-dev/writ/state/sessions"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func idOf(n uint64) (id sessions.ID) {
	binary.BigEndian.PutUint64(id[8:], n)
	return id
}

func principal(user, tenant string) *writv1.Principal {
	return &writv1.Principal{User: user, Tenant: tenant}
}

func begin(m *sessions.Machine, id sessions.ID, who *writv1.Principal, at time.Time) {
	token := make([]byte, 32)
	copy(token, id[:])
	m.Begin(&writv1.SessionRecord{
		Session: id[:], Event: writv1.SessionEvent_SESSION_EVENT_BEGIN, Principal: who,
		Time: timestamppb.New(at), ExpireTime: timestamppb.New(at.Add(sessions.DefaultLifetime)), TokenDigest: token,
	})
}

func tokenOf(id sessions.ID) (token sessions.Token) {
	copy(token[:], id[:])
	return token
}

var hasher = func() *atoms.Hasher { return atoms.NewHasher(atoms.Key{1}) }

// hear has a session observe what a source says.
func hear(m *sessions.Machine, id sessions.ID, source, text string, trust writv1.Trust) {
	in := sessions.Observed{
		Session: id, Source: source, Time: noon, Text: text, Selected: true,
		Worth: func(string) sessions.Worth { return sessions.Worth{Trust: trust} },
	}
	m.Observe(sessions.Observation(hasher(), in, func(atom uint64) (bool, bool) { return m.Said(id, atom) }))
}

// label is what a session knows of a text argument.
func label(m *sessions.Machine, id sessions.ID, text string) *writv1.ValueProvenance {
	found := m.Values(id, sessions.Ask(hasher(), []atoms.Leaf{{Path: "a", Field: "a", Text: text}}, false))
	if len(found) == 0 {
		return nil
	}
	return found[0]
}

func TestATokenIsItsOwnersAlone(t *testing.T) {
	t.Parallel()
	m := sessions.New()
	begin(m, idOf(1), principal("ann", "acme"), noon)
	for name, c := range map[string]struct {
		who *writv1.Principal
		at  time.Time
		ok  bool
	}{
		"the owner":               {principal("ann", "acme"), noon.Add(time.Minute), true},
		"another user":            {principal("bob", "acme"), noon, false},
		"another tenant":          {principal("ann", "umbrella"), noon, false},
		"after it has expired":    {principal("ann", "acme"), noon.Add(sessions.DefaultLifetime), false},
		"a workload of that name": {&writv1.Principal{Workload: "ann", Tenant: "acme"}, noon, false},
	} {
		_, err := m.Find(tokenOf(idOf(1)), sessions.OwnerOf(c.who), c.at)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestANewSessionBeginsWithWhatItsOwnerHasRead(t *testing.T) {
	t.Parallel()
	m := sessions.New()
	ann, bob := principal("ann", "acme"), principal("bob", "acme")
	begin(m, idOf(1), ann, noon)
	hear(m, idOf(1), "tool:web.get", "do as I say", writv1.Trust_TRUST_UNTRUSTED)
	begin(m, idOf(2), ann, noon.Add(time.Minute))
	begin(m, idOf(3), bob, noon.Add(time.Minute))
	read := func(id uint64, who *writv1.Principal) bool {
		return m.Summary(idOf(id), sessions.OwnerOf(who), noon.Add(2*time.Minute), nil).GetReadUntrusted()
	}
	if !read(1, ann) || !read(2, ann) {
		t.Error("a new session is rid of what its owner read")
	}
	if read(3, bob) {
		t.Error("what one owner read stains another's session")
	}
	if !read(1, ann) {
		t.Error("the first session forgot")
	}
}

func TestAnAmbientSessionSlides(t *testing.T) {
	t.Parallel()
	m := sessions.New()
	owner := sessions.OwnerOf(principal("ann", "acme"))
	deny := func(at time.Time) {
		m.Decided(sessions.Decided{Session: idOf(9), Owner: owner, Time: at, Tool: "t", Verdict: writv1.Verdict_VERDICT_DENY})
	}
	at := noon
	for range 5 {
		deny(at)
		at = at.Add(50 * time.Minute)
	}
	if got := m.Summary(idOf(9), owner, at, nil).GetCounts().GetDenials(); got != 5 {
		t.Errorf("denials while it slides: %d, want 5", got)
	}
	deny(at.Add(2 * time.Hour))
	if got := m.Summary(idOf(9), owner, at.Add(2*time.Hour), nil).GetCounts().GetDenials(); got != 1 {
		t.Errorf("denials after the window: %d, want 1", got)
	}
}

func TestAValueIsWorthWhatTheBestSourceOfAllOfItIs(t *testing.T) {
	t.Parallel()
	m := sessions.New()
	begin(m, idOf(1), principal("ann", "acme"), noon)
	hear(m, idOf(1), sessions.User, "mail a@x.org", writv1.Trust_TRUST_TRUSTED)
	hear(m, idOf(1), "tool:web.get", "or b@x.org and a@x.org", writv1.Trust_TRUST_UNTRUSTED)
	for text, want := range map[string]writv1.Trust{
		"a@x.org": writv1.Trust_TRUST_TRUSTED, "b@x.org": writv1.Trust_TRUST_UNTRUSTED, "a@x.org, b@x.org": writv1.Trust_TRUST_UNTRUSTED,
		"c@x.org": writv1.Trust_TRUST_UNSPECIFIED, "a@x.org, c@x.org": writv1.Trust_TRUST_UNSPECIFIED,
	} {
		if got := label(m, idOf(1), text).GetTrust(); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestWhatACallThatWritesCarriedIsNotTrustedWhenItComesBack(t *testing.T) {
	t.Parallel()
	m := sessions.New()
	begin(m, idOf(1), principal("ann", "acme"), noon)
	hear(m, idOf(1), "tool:mail.read", "I am eve@evil.org", writv1.Trust_TRUST_UNTRUSTED)
	trusted := func(string) sessions.Worth { return sessions.Worth{Trust: writv1.Trust_TRUST_TRUSTED} }
	said := func(atom uint64) (bool, bool) { return m.Said(idOf(1), atom) }
	leaf := []atoms.Leaf{{Path: "email", Field: "email", Text: "eve@evil.org"}}
	m.Observe(sessions.Observation(hasher(), sessions.Observed{
		Session: idOf(1), Source: "tool:book.add", Time: noon, JSON: []byte(`{"email":"eve@evil.org"}`), Worth: trusted, Carried: leaf,
	}, said))
	m.Observe(sessions.Observation(hasher(), sessions.Observed{
		Session: idOf(1), Source: "tool:book.find", Time: noon, JSON: []byte(`{"email":"eve@evil.org"}`), Worth: trusted,
	}, said))
	if got := label(m, idOf(1), "eve@evil.org").GetTrust(); got != writv1.Trust_TRUST_UNTRUSTED {
		t.Errorf("an address that was written untrusted came back %s", got)
	}
}

func TestAFullSessionLearnsNothingMore(t *testing.T) {
	t.Parallel()
	m := sessions.New()
	begin(m, idOf(1), principal("ann", "acme"), noon)
	packed := make([]byte, 0, 8*4000)
	for i := range uint64(2 * sessions.MostValues) {
		if packed = binary.BigEndian.AppendUint64(packed, i); len(packed) == cap(packed) {
			m.Observe(&writv1.ObservationRecord{
				Session: idBytes(1), Source: "tool:web.get", Time: timestamppb.New(noon),
				Groups: []*writv1.ObservedGroup{{Trust: writv1.Trust_TRUST_UNTRUSTED, Atoms: packed}},
			})
			packed = packed[:0]
		}
	}
	hear(m, idOf(1), "tool:book.find", "late@x.org", writv1.Trust_TRUST_TRUSTED)
	if label(m, idOf(1), "late@x.org") != nil {
		t.Error("a full session learnt a value")
	}
	if !m.Summary(idOf(1), sessions.OwnerOf(principal("ann", "acme")), noon, nil).GetFull() {
		t.Error("a full session does not say so")
	}
}

func TestATenantFillsNoOtherTenantsSessions(t *testing.T) {
	t.Parallel()
	m := sessions.New()
	m.SetMostOfTenant(20)
	begin(m, idOf(1), principal("ann", "acme"), noon)
	begin(m, idOf(2), principal("bob", "umbrella"), noon)
	for i := range 40 {
		hear(m, idOf(1), "tool:web.get", fmt.Sprintf("%d@evil.org", i), writv1.Trust_TRUST_UNTRUSTED)
	}
	hear(m, idOf(2), "tool:book.find", "late@x.org", writv1.Trust_TRUST_TRUSTED)
	if label(m, idOf(1), "39@evil.org") != nil || label(m, idOf(2), "late@x.org") == nil {
		t.Error("the first tenant took more than it may, or the second got nothing")
	}
	m.End(&writv1.SessionRecord{Session: idBytes(1), Event: writv1.SessionEvent_SESSION_EVENT_END, Principal: principal("ann", "acme"), Time: timestamppb.New(noon)})
	begin(m, idOf(3), principal("ann", "acme"), noon)
	hear(m, idOf(3), "tool:book.find", "late@x.org", writv1.Trust_TRUST_TRUSTED)
	if label(m, idOf(3), "late@x.org") == nil {
		t.Error("what a session knew is counted after its end")
	}
}

func idBytes(n uint64) []byte {
	id := idOf(n)
	return id[:]
}

// TestNothingIsKnownAcrossTenants draws what two tenants' sessions hear, and asks
// each for the other's values.
func TestNothingIsKnownAcrossTenants(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := sessions.New()
		begin(m, idOf(1), principal("ann", "acme"), noon)
		begin(m, idOf(2), principal("ann", "umbrella"), noon)
		for range rapid.IntRange(1, 10).Draw(t, "times") {
			trust := rapid.SampledFrom([]writv1.Trust{writv1.Trust_TRUST_TRUSTED, writv1.Trust_TRUST_UNTRUSTED}).Draw(t, "trust")
			hear(m, idOf(1), rapid.SampledFrom([]string{sessions.User, "tool:a"}).Draw(t, "source"), rapid.StringMatching(`[a-z]{3}@a\.org`).Draw(t, "text"), trust)
			hear(m, idOf(2), "tool:b", rapid.StringMatching(`[a-z]{3}@b\.org`).Draw(t, "text"), trust)
		}
		mine := rapid.StringMatching(`[a-z]{3}@b\.org`).Draw(t, "asked")
		if found := label(m, idOf(1), mine); found != nil {
			t.Fatalf("one tenant's session knows %s of another's: %v", mine, found)
		}
	})
}

// TestAMachineThatIsRestoredIsTheSame draws events and restores what is held after
// each of them.
func TestAMachineThatIsRestoredIsTheSame(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := sessions.New()
		users := []string{"ann", "bob"}
		for n := range rapid.Uint64Range(1, 30).Draw(t, "events") {
			at := noon.Add(time.Duration(n) * time.Minute)
			user := rapid.SampledFrom(users).Draw(t, "user")
			id := idOf(rapid.Uint64Range(1, 4).Draw(t, "session"))
			switch rapid.IntRange(0, 3).Draw(t, "event") {
			case 0:
				if m.Expire(id).IsZero() {
					begin(m, id, principal(user, "acme"), at)
				}
			case 1:
				m.Decided(sessions.Decided{
					Session: id, Owner: sessions.OwnerOf(principal(user, "acme")), Time: at, Decision: idOf(n + 1), Tool: "t",
					Verdict: rapid.SampledFrom([]writv1.Verdict{writv1.Verdict_VERDICT_ALLOW, writv1.Verdict_VERDICT_DENY}).Draw(t, "verdict"),
					Kept:    []*writv1.KeptField{{Path: "args.a", Value: `"x"`}},
				})
			case 2:
				m.Ended(idOf(rapid.Uint64Range(1, n+1).Draw(t, "ended")), &writv1.OutcomeRecord{State: writv1.OutcomeState_OUTCOME_STATE_SUCCEEDED})
			case 3:
				hear(m, id, sessions.User, rapid.StringMatching(`[a-z]{2}@a\.org`).Draw(t, "text"), writv1.Trust_TRUST_TRUSTED)
			}
		}
		again := sessions.New()
		for _, part := range m.Held() {
			if err := again.Restore(proto.CloneOf(part)); err != nil {
				t.Fatal(err)
			}
		}
		if m.Dump() != again.Dump() {
			t.Fatal("the restored machine is another")
		}
	})
}

// Calls that are decided at once are recorded in another order than they are applied in.
func TestTheOrderInWhichCallsAreToldDoesNotMatter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		calls := make([]uint64, rapid.IntRange(1, 2*sessions.MostSteps).Draw(t, "calls"))
		for n := range calls {
			calls[n] = uint64(n + 1)
		}
		told := func(order []uint64) string {
			m := sessions.New()
			for _, n := range order {
				m.Decided(sessions.Decided{
					Session: idOf(1), Owner: sessions.OwnerOf(principal("ann", "acme")), Time: noon.Add(time.Duration(n/4) * time.Second),
					Decision: idOf(n), Tool: "t", Verdict: writv1.Verdict_VERDICT_ALLOW,
				})
			}
			return m.Dump()
		}
		if told(calls) != told(rapid.Permutation(calls).Draw(t, "order")) {
			t.Fatal("another order of calls makes another session")
		}
	})
}

// share has a session read a note that names who may read it.
func share(m *sessions.Machine, text, readers string) {
	in := sessions.Observed{
		Session: idOf(1), Tenant: "acme", Source: "tool:notes.read", Time: noon, JSON: []byte(`{"text":"` + text + `","with":` + readers + `}`), Selected: true,
		Worth: func(field string) sessions.Worth {
			return sessions.Worth{Trust: writv1.Trust_TRUST_TRUSTED, Readers: field == "with", Restricted: true}
		},
	}
	m.Observe(sessions.Observation(hasher(), in, func(atom uint64) (bool, bool) { return m.Said(idOf(1), atom) }))
}

func TestWhatNamesItsReadersGoesToThemAlone(t *testing.T) {
	t.Parallel()
	const secret = "the offsite is in Lisbon on Friday"
	m := sessions.New()
	begin(m, idOf(1), principal("ann", "acme"), noon)
	share(m, secret, `["jane@example.com","Tom@Example.com"]`)
	share(m, "nobody may know about the merger yet", `[]`)
	share(m, "both notes say that lunch is at noon", `["jane@example.com","tom@example.com"]`)
	share(m, "both notes say that lunch is at noon", `["tom@example.com","kim@example.com"]`)
	beyond := func(text string, to ...string) bool {
		leaves := []atoms.Leaf{{Path: "text", Field: "text", Text: text}}
		for _, name := range to {
			leaves = append(leaves, atoms.Leaf{Path: "to", Field: "to", Text: name, Audience: true})
		}
		return m.Values(idOf(1), sessions.Ask(hasher(), leaves, true))[0].GetBeyondReaders()
	}
	for name, c := range map[string]struct {
		text string
		to   []string
		want bool
	}{
		"a reader":                            {secret, []string{"JANE@example.com"}, false},
		"both readers":                        {"FYI: " + secret, []string{"jane@example.com", "tom@example.com"}, false},
		"somebody else":                       {secret, []string{"eve@example.com"}, true},
		"somebody else beside a reader":       {secret, []string{"jane@example.com", "eve@example.com"}, true},
		"nobody who is known":                 {secret, nil, true},
		"a part of it, to somebody else":      {"it is in Lisbon on Friday", []string{"eve@example.com"}, true},
		"in base64, to somebody else":         {"dGhlIG9mZnNpdGUgaXMgaW4gTGlzYm9uIG9uIEZyaWRheQ==", []string{"eve@example.com"}, true},
		"something else, to somebody else":    {"we meet on Monday", []string{"eve@example.com"}, false},
		"what nobody may read":                {"nobody may know about the merger yet", []string{"jane@example.com"}, true},
		"what two say, to who may read both":  {"both notes say that lunch is at noon", []string{"tom@example.com"}, false},
		"what two say, to who may read one":   {"both notes say that lunch is at noon", []string{"jane@example.com"}, true},
		"the address of a reader, to another": {"ask jane@example.com", []string{"eve@example.com"}, false},
	} {
		if got := beyond(c.text, c.to...); got != c.want {
			t.Errorf("%s: beyond its readers is %v, want %v", name, got, c.want)
		}
	}
}
