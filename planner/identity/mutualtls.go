// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// certificateRefresh is how old the certificates may get before their files are
// looked at again: workload certificates often live for an hour.
const certificateRefresh = 10 * time.Second

// MutualTLS returns the credentials of a server whose clients must present a
// certificate that chains to the configured authorities. The files are read
// again when they change; files that cannot be read any more leave the last good
// ones standing, and log hears of it.
func MutualTLS(config *writv1.ServerTls, clock func() time.Time, log *slog.Logger) (credentials.TransportCredentials, error) {
	c := &certificates{config: config, clock: clock, log: log, checked: clock()}
	var err error
	if c.seen, err = c.look(); err != nil {
		return nil, err
	}
	if c.current, err = c.load(); err != nil {
		return nil, err
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.fresh(), nil },
	}), nil
}

// certificates are a server's own and those of its clients' authorities.
type certificates struct {
	config *writv1.ServerTls
	clock  func() time.Time
	log    *slog.Logger

	mu      sync.Mutex // guards what follows
	current *tls.Config
	checked time.Time     // when the files were last looked at
	seen    []os.FileInfo // what they looked like
}

func (c *certificates) fresh() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock()
	if age := now.Sub(c.checked); age >= 0 && age < certificateRefresh {
		return c.current
	}
	c.checked = now
	seen, err := c.look()
	if err == nil && same(seen, c.seen) {
		return c.current
	}
	var loaded *tls.Config
	if err == nil {
		loaded, err = c.load()
	}
	if err != nil {
		c.log.Error("the planners' certificates could not be read again; the last good ones stand", "error", err)
		return c.current
	}
	c.current, c.seen = loaded, seen
	return c.current
}

func (c *certificates) look() ([]os.FileInfo, error) {
	var seen []os.FileInfo
	for _, file := range []string{c.config.GetCertificateFile(), c.config.GetKeyFile(), c.config.GetClientCaFile()} {
		info, err := os.Stat(file)
		if err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
		seen = append(seen, info)
	}
	return seen, nil
}

func same(a, b []os.FileInfo) bool {
	for i := range a {
		if !unchanged(a[i], b[i]) {
			return false
		}
	}
	return true
}

// unchanged reports whether a file looks as it did.
func unchanged(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

func (c *certificates) load() (*tls.Config, error) {
	own, err := tls.LoadX509KeyPair(c.config.GetCertificateFile(), c.config.GetKeyFile())
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	pem, err := os.ReadFile(c.config.GetClientCaFile())
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(pem) {
		return nil, errors.New("certificates: the file of the clients' authorities holds none")
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{"h2"},
		Certificates: []tls.Certificate{own},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    authorities,
		// A resumed session would outlive an authority that was taken out.
		SessionTicketsDisabled: true,
	}, nil
}
