// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/writ-dev/writ/proto/reasons"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// maxRoles bounds the roles of a principal, as Principal.roles does.
const maxRoles = 64

// Options configures a [Verifier].
type Options struct {
	// Config says what verifies whom. Nil verifies nobody.
	Config *writv1.IdentityConfig
	// Clock tells the time by which tokens expire. It MUST be set.
	Clock func() time.Time
	// Log hears of keys that could not be read again. Nil is silent.
	Log *slog.Logger
}

// Verifier finds out who calls. It is safe for use by several goroutines: all but
// the keys of tokens is fixed when it is made, and those have a lock of their own.
type Verifier struct {
	tokens     *tokens // nil when no issuer is configured
	workloads  map[string]*writv1.WorkloadConfig
	workloadOf map[uint32]*writv1.WorkloadConfig
}

// New returns a Verifier. It reads the issuer's keys, and refuses a configuration
// in which a uid or a SPIFFE ID would name two workloads.
func New(o Options) (*Verifier, error) {
	v := &Verifier{
		workloads:  make(map[string]*writv1.WorkloadConfig, len(o.Config.GetWorkloads())),
		workloadOf: make(map[uint32]*writv1.WorkloadConfig),
	}
	for _, w := range o.Config.GetWorkloads() {
		if err := v.addWorkload(w); err != nil {
			return nil, err
		}
	}
	config := o.Config.GetJwt()
	if config == nil {
		return v, nil
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	keys, err := openKeys(config.GetJwksFile(), o.Clock, o.Log)
	if err != nil {
		return nil, err
	}
	v.tokens = newTokens(config, keys, o.Clock)
	return v, nil
}

func (v *Verifier) addWorkload(w *writv1.WorkloadConfig) error {
	id := w.GetSpiffeId()
	if !validSpiffeID(id) {
		return fmt.Errorf("workload %q: not the SPIFFE ID of a workload", id)
	}
	if _, found := v.workloads[id]; found {
		return fmt.Errorf("workload %q is configured twice", id)
	}
	v.workloads[id] = w
	if w.Uid == nil {
		return nil
	}
	if other, found := v.workloadOf[w.GetUid()]; found {
		return fmt.Errorf("workloads %q and %q have the same uid %d", other.GetSpiffeId(), id, w.GetUid())
	}
	v.workloadOf[w.GetUid()] = w
	return nil
}

// Principal returns who the caller is proved to be: by the connection, which is
// the AuthInfo of mutual TLS or of [PeerCredentials] (nil proves nothing), and by
// the values of the request's authorization header. It refuses with
// PRINCIPAL_UNAUTHENTICATED where nothing proves anything, and with
// PRINCIPAL_TOKEN_INVALID where a token was presented that does not verify.
func (v *Verifier) Principal(connection credentials.AuthInfo, authorization []string) (*writv1.Principal, *reasons.Error) {
	p, refusal := v.workload(connection)
	if refusal != nil {
		return nil, refusal
	}
	token, refusal := bearer(authorization)
	if refusal != nil {
		return nil, refusal
	}
	if token != "" {
		if refusal := v.addUser(p, token); refusal != nil {
			return nil, refusal
		}
	}
	if p.GetWorkload() == "" && p.GetUser() == "" {
		return nil, reasons.New(writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED, "",
			"no verified source names a workload or a user")
	}
	slices.Sort(p.Roles)
	p.Roles = slices.Compact(p.Roles)
	if len(p.Roles) > maxRoles {
		return nil, invalidToken(fmt.Errorf("%d roles", len(p.Roles)))
	}
	return p, nil
}

// workload returns what the connection proves; a principal without a workload
// where it proves nothing.
func (v *Verifier) workload(connection credentials.AuthInfo) (*writv1.Principal, *reasons.Error) {
	var known *writv1.WorkloadConfig
	p := &writv1.Principal{}
	switch c := connection.(type) {
	case credentials.TLSInfo:
		id, err := CertificateID(c.State)
		if err != nil {
			return nil, reasons.Wrap(err, writv1.Reason_REASON_PRINCIPAL_UNAUTHENTICATED, "",
				"the client certificate is not a workload's")
		}
		p.Workload, known = id, v.workloads[id]
	case UnixPeer:
		if known = v.workloadOf[c.UID]; known != nil {
			p.Workload = known.GetSpiffeId()
		}
	}
	p.Tenant = known.GetTenant()
	p.Roles = slices.Clone(known.GetRoles())
	return p, nil
}

func (v *Verifier) addUser(p *writv1.Principal, token string) *reasons.Error {
	if v.tokens == nil {
		return invalidToken(fmt.Errorf("no issuer is configured"))
	}
	c, err := v.tokens.verify(token)
	if err != nil {
		return invalidToken(err)
	}
	if p.GetTenant() != "" && c.tenant != "" && p.GetTenant() != c.tenant {
		return invalidToken(fmt.Errorf("the token is of another tenant than the workload"))
	}
	if c.tenant != "" {
		p.Tenant = c.tenant
	}
	p.User = c.user
	p.Roles = append(p.Roles, c.roles...)
	return nil
}

// invalidToken hides the cause from the caller: which check a forged token failed
// is nobody's business but the operator's.
func invalidToken(cause error) *reasons.Error {
	return reasons.Wrap(cause, writv1.Reason_REASON_PRINCIPAL_TOKEN_INVALID, "",
		"the token does not verify; get a fresh one from the configured issuer")
}
