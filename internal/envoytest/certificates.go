// SPDX-License-Identifier: Apache-2.0

package envoytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// workload is the SPIFFE ID of callers with certificates.
const workload = "spiffe://example.org/ns/desk/sa/planner"

// useCertificates has Envoy demand certificates, and gives the client one.
func (s *Stack) useCertificates(config *writv1.AgentConfig) {
	s.t.Helper()
	ca := newAuthority(s.t)
	id, err := url.Parse(workload)
	if err != nil {
		s.t.Fatal(err)
	}
	server := ca.issue(s.t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	client := ca.issue(s.t, &x509.Certificate{URIs: []*url.URL{id}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	pair, err := tls.LoadX509KeyPair(client.certificate, client.key)
	if err != nil {
		s.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.certificate)
	s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: roots, Certificates: []tls.Certificate{pair}, ServerName: "127.0.0.1",
	}}
	s.Workload, s.scheme = workload, "https"
	config.Envoy.Tls = &writv1.ServerTls{CertificateFile: server.certificate, KeyFile: server.key, ClientCaFile: ca.file}
	config.Identity.Workloads = []*writv1.WorkloadConfig{{SpiffeId: workload, Tenant: "acme", Roles: []string{"agent"}}}
}

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	dir, file   string
}

// pairFiles are those of a certificate and its key.
type pairFiles struct{ certificate, key string }

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{key: newKey(t), dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.file = filepath.Join(a.dir, "ca.pem")
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

// issue signs what template says, and writes it with a new key.
func (a *authority) issue(t testing.TB, template *x509.Certificate) pairFiles {
	t.Helper()
	key := newKey(t)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.KeyUsage = serial, x509.KeyUsageDigitalSignature
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := pairFiles{filepath.Join(a.dir, serial.String()+".pem"), filepath.Join(a.dir, serial.String()+".key")}
	writePEM(t, files.certificate, "CERTIFICATE", der)
	writePEM(t, files.key, "PRIVATE KEY", private)
	return files
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writePEM(t testing.TB, name, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
