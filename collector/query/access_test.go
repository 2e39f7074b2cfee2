// SPDX-License-Identifier: Apache-2.0

package query_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/writ-dev/writ/collector/query"
	"github.com/writ-dev/writ/internal/testenv"
	"github.com/writ-dev/writ/planner/identity"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// hall is a record service over mutual TLS.
type hall struct {
	authority *testenv.Authority
	pool      *x509.CertPool
	address   string

	mu sync.Mutex // guards what follows
	// reads are those that were recorded; while full is set none is.
	reads []*writv1.ReadRecord
	full  bool
}

// record is where a hall's reads are recorded.
func (h *hall) record(_ context.Context, r *writv1.ReadRecord) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.full {
		return errors.New("no room")
	}
	h.reads = append(h.reads, r)
	return nil
}

// recorded are the reads since it was called last.
func (h *hall) recorded() []*writv1.ReadRecord {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := h.reads
	h.reads = nil
	return out
}

func (h *hall) setFull(full bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.full = full
}

func openHall(t *testing.T, d *desk, readers ...*writv1.Reader) *hall {
	t.Helper()
	return openHallAt(t, d, query.Hearing{}, readers...)
}

// openHallAt is a hall with its own idea of when agents are silent.
func openHallAt(t *testing.T, d *desk, hearing query.Hearing, readers ...*writv1.Reader) *hall {
	t.Helper()
	access := query.NewAccess(readers, identity.CertificateID)
	h := &hall{authority: testenv.NewAuthority(t), pool: x509.NewCertPool()}
	text, err := os.ReadFile(h.authority.File)
	if err != nil {
		t.Fatal(err)
	}
	h.pool.AppendCertsFromPEM(text)
	own := h.pair(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.address = listener.Addr().String()
	guard := query.NewGuard(access, h.record, nil)
	server := grpc.NewServer(grpc.UnaryInterceptor(guard.Unary), grpc.StreamInterceptor(guard.Stream), grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{own}, ClientCAs: h.pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	})))
	writv1.RegisterRecordServiceServer(server, query.NewServer(query.Options{Store: d.store, Access: access}))
	writv1.RegisterAgentServiceServer(server, query.NewAgentServer(query.AgentsFromStore(d.store, hearing), access, nil))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return h
}

func (h *hall) pair(t *testing.T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	files := h.authority.Issue(t, template)
	pair, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// as connects with a certificate that has a SPIFFE ID, or none where that is empty.
func (h *hall) as(t *testing.T, id string) writv1.RecordServiceClient {
	t.Helper()
	return writv1.NewRecordServiceClient(h.dial(t, id))
}

func (h *hall) dial(t *testing.T, id string) *grpc.ClientConn {
	t.Helper()
	template := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if id != "" {
		name, err := url.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = []*url.URL{name}
	}
	conn, err := grpc.NewClient(h.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{h.pair(t, template)}, RootCAs: h.pool, MinVersion: tls.VersionTLS13,
	})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

const (
	auditor  = "spiffe://example.org/auditor"
	operator = "spiffe://example.org/operator"
	chief    = "spiffe://example.org/chief"
	ofAcme   = "spiffe://example.org/acme"
	acmeDesk = "spiffe://example.org/acme/desk"
	ofBoth   = "spiffe://example.org/both"
	agent    = "spiffe://example.org/agent"
)

func openReaders(t *testing.T) (*desk, *hall) {
	t.Helper()
	d := newDesk(t)
	d.write(t, aDay()...)
	return d, openHall(t, d,
		&writv1.Reader{SpiffeId: auditor, Tenants: []string{"*"}},
		&writv1.Reader{SpiffeId: operator, Tenants: []string{"*"}, Roles: []writv1.ReaderRole{writv1.ReaderRole_READER_ROLE_OPERATOR}},
		&writv1.Reader{SpiffeId: chief, Tenants: []string{"*"}, Roles: []writv1.ReaderRole{writv1.ReaderRole_READER_ROLE_OPERATOR, writv1.ReaderRole_READER_ROLE_AUDITOR}},
		// The configuration's own rules refuse this one.
		&writv1.Reader{SpiffeId: acmeDesk, Tenants: []string{"acme"}, Roles: []writv1.ReaderRole{writv1.ReaderRole_READER_ROLE_OPERATOR}},
		&writv1.Reader{SpiffeId: ofAcme, Tenants: []string{"acme"}},
		&writv1.Reader{SpiffeId: ofBoth, Tenants: []string{"acme", "globex"}})
}

func TestAReaderListsTheRecordsOfItsTenantsAlone(t *testing.T) {
	t.Parallel()
	_, h := openReaders(t)
	acme, globex := []uint64{11, 10, 9, 4, 3, 2}, []uint64{8, 7, 5}
	for name, c := range map[string]struct {
		who, tenant string
		want        []uint64
		code        codes.Code
	}{
		"an auditor reads everything":                         {auditor, "", []uint64{11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}, codes.OK},
		"an auditor asks for one tenant":                      {auditor, "globex", globex, codes.OK},
		"one of a tenant reads that tenant's, asked or not":   {ofAcme, "", acme, codes.OK},
		"one of a tenant asks for it":                         {ofAcme, "acme", acme, codes.OK},
		"one of a tenant asks for another's":                  {ofAcme, "globex", nil, codes.PermissionDenied},
		"one of two tenants names one of them":                {ofBoth, "globex", globex, codes.OK},
		"one of two tenants names none of them":               {ofBoth, "", nil, codes.InvalidArgument},
		"an agent's certificate reads nothing":                {agent, "", nil, codes.PermissionDenied},
		"a certificate without a name reads nothing":          {"", "", nil, codes.PermissionDenied},
		"a longer name than a reader's is another":            {ofAcme + "x", "acme", nil, codes.PermissionDenied},
		"all tenants are not asked for as a tenant of theirs": {ofAcme, "*", nil, codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := h.as(t, c.who)
			filter := &writv1.RecordFilter{Tenant: c.tenant}
			if _, err := client.ListRecords(t.Context(), &writv1.ListRecordsRequest{Filter: filter}); status.Code(err) != c.code {
				t.Fatalf("ListRecords = %v, want %s", err, c.code)
			}
			if c.code != codes.OK {
				return
			}
			// Two a page: a token goes on with what its reader may read.
			if diff := cmp.Diff(c.want, indexes(t, records(t.Context(), t, query.FromService(client), filter, 2))); diff != "" {
				t.Errorf("listed (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAReaderIsNotToldThatAnotherTenantHasADecision(t *testing.T) {
	t.Parallel()
	_, h := openReaders(t)
	get := func(who string, n byte) (*writv1.GetRecordResponse, error) {
		return h.as(t, who).GetRecord(t.Context(), &writv1.GetRecordRequest{DecisionId: strings.Repeat("0", 31) + string('0'+n)})
	}
	own, err := get(ofAcme, 1)
	if err != nil || len(own.GetRecords()) == 0 {
		t.Errorf("one's own: %v, %v", own, err)
	}
	if both, err := get(ofBoth, 3); err != nil || len(both.GetRecords()) != 1 {
		t.Errorf("one of two tenants': %v, %v", both, err)
	}
	_, anothers := get(ofAcme, 3)
	_, nobodys := get(ofAcme, 8)
	if status.Code(anothers) != codes.NotFound || anothers.Error() != nobodys.Error() {
		t.Errorf("another's: %v; one that there is not: %v", anothers, nobodys)
	}
	if _, err := get(agent, 1); status.Code(err) != codes.PermissionDenied {
		t.Errorf("an agent: %v", err)
	}
}

func TestAReaderWatchesTheRecordsOfItsTenantsAlone(t *testing.T) {
	t.Parallel()
	d, h := openReaders(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watched, err := query.FromService(h.as(t, ofAcme)).Watch(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.write(t,
		decision(20, "globex", "mail.send", "x", "", writv1.Verdict_VERDICT_DENY),
		decision(21, "acme", "mail.send", "x", "", writv1.Verdict_VERDICT_DENY),
		outcome(20, "globex"), outcome(21, "acme"))
	got := []uint64{}
	for record, err := range watched {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, recordIn(t, record).GetIndex()); len(got) == 2 {
			break
		}
	}
	if diff := cmp.Diff([]uint64{13, 15}, got); diff != "" {
		t.Errorf("watched (-want +got):\n%s", diff)
	}
	for _, who := range []string{agent, ""} {
		if _, err := query.FromService(h.as(t, who)).Watch(ctx, nil); !strings.Contains(err.Error(), codes.PermissionDenied.String()) {
			t.Errorf("Watch as %q = %v", who, err)
		}
	}
}
