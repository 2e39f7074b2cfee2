// SPDX-License-Identifier: Apache-2.0

package envoytest

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/writ-dev/writ/internal/testenv"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// workload is the SPIFFE ID of callers with certificates.
const workload = "spiffe://example.org/ns/desk/sa/planner"

// useCertificates has Envoy demand certificates, and gives the client one.
func (s *Stack) useCertificates(config *writv1.AgentConfig) {
	s.t.Helper()
	ca := testenv.NewAuthority(s.t)
	id, err := url.Parse(workload)
	if err != nil {
		s.t.Fatal(err)
	}
	server := ca.Issue(s.t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	client := ca.Issue(s.t, &x509.Certificate{URIs: []*url.URL{id}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	pair, err := tls.LoadX509KeyPair(client.Certificate, client.Key)
	if err != nil {
		s.t.Fatal(err)
	}
	authorities, err := os.ReadFile(ca.File)
	if err != nil {
		s.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authorities)
	s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}, ServerName: "127.0.0.1",
	}}
	s.Workload, s.scheme = workload, "https"
	config.Envoy.Tls = &writv1.ServerTls{CertificateFile: server.Certificate, KeyFile: server.Key, ClientCaFile: ca.File}
	config.Identity.Workloads = []*writv1.WorkloadConfig{{SpiffeId: workload, Tenant: "acme", Roles: []string{"agent"}}}
}
