// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/writ-dev/writ/planner/identity"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	data := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return &authority{certificate: must(x509.ParseCertificate(data)), key: key}
}

// issue returns a certificate for 127.0.0.1 and, if it is not empty, a SPIFFE ID.
func (a *authority) issue(t *testing.T, id string) tls.Certificate {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if id != "" {
		template.URIs = []*url.URL{must(url.Parse(id))}
	}
	data := must(x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key))
	return tls.Certificate{Certificate: [][]byte{data}, PrivateKey: key}
}

// write puts a server's files into dir: its certificate, and whose clients it takes.
func write(t *testing.T, dir string, own tls.Certificate, clients *authority) *writv1.ServerTls {
	t.Helper()
	config := &writv1.ServerTls{
		CertificateFile: filepath.Join(dir, "own.pem"), KeyFile: filepath.Join(dir, "own.key"), ClientCaFile: filepath.Join(dir, "clients.pem"),
	}
	for file, block := range map[string]*pem.Block{
		config.CertificateFile: {Type: "CERTIFICATE", Bytes: own.Certificate[0]},
		config.KeyFile:         {Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(own.PrivateKey))},
		config.ClientCaFile:    {Type: "CERTIFICATE", Bytes: clients.certificate.Raw},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config
}

// shake makes a connection and returns what it proves to the server.
func shake(t *testing.T, server credentials.TransportCredentials, trusts *authority, own ...tls.Certificate) (credentials.AuthInfo, error) {
	t.Helper()
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	defer func() { _ = listener.Close() }()
	pool := x509.NewCertPool()
	pool.AddCert(trusts.certificate)
	go func() {
		config := &tls.Config{RootCAs: pool, Certificates: own, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}
		conn, err := tls.Dial("tcp", listener.Addr().String(), config)
		if err != nil {
			return // the server's side of it is what is looked at
		}
		_, _ = conn.Read(make([]byte, 1)) // until the server hangs up
		_ = conn.Close()
	}()
	conn := must(listener.Accept())
	defer func() { _ = conn.Close() }()
	_, info, err := server.ServerHandshake(conn)
	return info, err
}

func TestMutualTLSProvesAWorkload(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	server, err := identity.MutualTLS(write(t, t.TempDir(), ours.issue(t, ""), ours), time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	info, err := shake(t, server, ours, ours.issue(t, desk))
	if err != nil {
		t.Fatal(err)
	}
	p, refusal := newVerifier(t).Principal(info, nil)
	if refusal != nil || p.GetWorkload() != desk {
		t.Errorf("the connection proves %v (%v), want %s", p, refusal, desk)
	}
	if _, err := shake(t, server, ours, theirs.issue(t, desk)); err == nil {
		t.Error("a certificate of another authority is taken")
	}
	if _, err := shake(t, server, ours); err == nil {
		t.Error("a client without a certificate is taken")
	}
}

func TestCertificatesAreReadAgainWhenTheirFilesChange(t *testing.T) {
	t.Parallel()
	before, after := newAuthority(t), newAuthority(t)
	dir, clock := t.TempDir(), time.Now()
	server, err := identity.MutualTLS(write(t, dir, before.issue(t, ""), before), func() time.Time { return clock }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, who *authority, want bool) {
		t.Helper()
		if _, err := shake(t, server, who, who.issue(t, desk)); (err == nil) != want {
			t.Errorf("%s: %v, want taken %v", when, err, want)
		}
	}
	check("at first", before, true)
	config := write(t, dir, after.issue(t, ""), after)
	check("before the files are looked at again", before, true)
	clock = clock.Add(10 * time.Second)
	check("the old authority after the change", before, false)
	check("the new authority after the change", after, true)
	if err := os.WriteFile(config.GetKeyFile(), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	clock = clock.Add(10 * time.Second)
	check("the last good one when a file is broken", after, true)
}

func TestMutualTLSNeedsItsFiles(t *testing.T) {
	t.Parallel()
	for name, file := range map[string]func(*writv1.ServerTls) string{
		"the certificate": (*writv1.ServerTls).GetCertificateFile,
		"the key":         (*writv1.ServerTls).GetKeyFile,
		"the authorities": (*writv1.ServerTls).GetClientCaFile,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours := newAuthority(t)
			config := write(t, t.TempDir(), ours.issue(t, ""), ours)
			if err := os.WriteFile(file(config), []byte("nothing"), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := identity.MutualTLS(config, time.Now, nil); err == nil {
				t.Error("a file that holds nothing is taken")
			}
			if err := os.Remove(file(config)); err != nil {
				t.Fatal(err)
			}
			if _, err := identity.MutualTLS(config, time.Now, nil); err == nil {
				t.Error("a file that is not there is taken")
			}
		})
	}
}
