// SPDX-License-Identifier: Apache-2.0

// Package webhook posts messages to an endpoint of the operator's, such as a bridge
// to a chat or a ticket system, signed as the Standard Webhooks specification 1.0
// says (https://www.standardwebhooks.com).
//
// It promises that [Sender.Send] never waits, that every attempt of a message bears
// the same id, so that the receiver can tell a repeat, and that a message which is
// not taken is tried again with growing pauses. It keeps no message across a
// restart, follows no redirect and reads nothing of what is answered but the status:
// what must not be lost stands in the ledger, and a message points there.
//
//	secret, err := webhook.ReadSecret("/etc/writ/alerts.secret")
//	sender, err := webhook.New(webhook.Options{URL: "https://chat.example/hooks/writ", Secret: secret, Clock: time.Now, Log: log})
//	go sender.Run(ctx)
//	err = sender.Send("alert_42", body)
package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

var (
	// ErrFull is returned when too many messages wait already.
	ErrFull = errors.New("too many messages wait for the webhook")
	// ErrURL is returned for an address that messages must not go to.
	ErrURL = errors.New("a webhook needs an https URL without user and fragment, or http on loopback")
)

// mostWaiting bounds the messages that wait, mostBytes each of them.
const (
	mostWaiting = 1000
	mostBytes   = 64 << 10
)

// attemptTimeout bounds one attempt. The specification asks for 15 to 30 s.
const attemptTimeout = 15 * time.Second

// pauses are those between the attempts of a message, as the specification
// recommends them but for the last days: a message that is that old is of no use.
var pauses = []time.Duration{5 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour}

// Options is what a sender is made of.
type Options struct {
	// URL is where messages are posted.
	URL string
	// Secret signs them: see [ReadSecret].
	Secret []byte
	// Transport posts; nil is [http.DefaultTransport].
	Transport http.RoundTripper
	// Clock tells the time.
	Clock func() time.Time
	// Log is told of what was not taken. It never gets bodies or the secret.
	Log *slog.Logger
	// Pauses are those between attempts; nil is 5 s to 2 h. After the last one the
	// message is dropped.
	Pauses []time.Duration
	// Done, which may be nil, hears of every attempt: whether it was taken.
	Done func(taken Taken)
}

// Taken says what became of an attempt.
type Taken int

const (
	// Delivered means that the receiver took the message.
	Delivered Taken = iota
	// Retried means that it did not, and that it will be tried again.
	Retried
	// Dropped means that it did not, and that it is given up.
	Dropped
)

// Sender posts messages. Send may be called from any goroutine, Run from one.
type Sender struct {
	options Options
	client  *http.Client

	// mu guards what follows.
	mu      sync.Mutex
	waiting []*message
	// woken has room for one word that something new waits.
	woken chan struct{}
}

// message is one that waits: for its next attempt at due.
type message struct {
	id       string
	body     []byte
	attempts int
	due      time.Time
}

// New returns a sender.
func New(o Options) (*Sender, error) {
	if err := CheckURL(o.URL); err != nil {
		return nil, err
	}
	if len(o.Secret) < leastSecret {
		return nil, ErrSecret
	}
	if o.Pauses == nil {
		o.Pauses = pauses
	}
	return &Sender{
		options: o,
		client: &http.Client{
			Transport: o.Transport, Timeout: attemptTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		woken: make(chan struct{}, 1),
	}, nil
}

// CheckURL says whether messages may be posted to an address: what they tell must
// not be read on the way.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return ErrURL
	}
	ip := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback) {
		return ErrURL
	}
	return nil
}

// Send has a message posted. Its id MUST be unique among all messages to the
// receiver, and name the same message whenever it is sent again. The body MUST be
// JSON, hold no sensitive value, and not be changed afterwards.
func (s *Sender) Send(id string, body []byte) error {
	if len(body) > mostBytes {
		return fmt.Errorf("a message of %d bytes is more than a webhook takes", len(body))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) >= mostWaiting {
		return ErrFull
	}
	s.waiting = append(s.waiting, &message{id: id, body: body, due: s.options.Clock()})
	select {
	case s.woken <- struct{}{}:
	default:
	}
	return nil
}

// Run posts what is sent until ctx is done. What waits then is lost.
func (s *Sender) Run(ctx context.Context) {
	for {
		next, wait := s.next()
		if next == nil || wait > 0 {
			if !s.pause(ctx, next, wait) {
				return
			}
			continue
		}
		s.settle(ctx, next, s.post(ctx, next))
		if ctx.Err() != nil {
			return
		}
	}
}

// next returns the message that is due first, and how long that is.
func (s *Sender) next() (*message, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var first *message
	for _, m := range s.waiting {
		if first == nil || m.due.Before(first.due) {
			first = m
		}
	}
	if first == nil {
		return nil, 0
	}
	return first, first.due.Sub(s.options.Clock())
}

// pause waits until something is due or new; false means that there is no more time.
func (s *Sender) pause(ctx context.Context, next *message, wait time.Duration) bool {
	var due <-chan time.Time
	if next != nil {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-s.woken:
	case <-due:
	}
	return true
}

// post makes one attempt. Any answer but a 2xx is a failure, a redirect too.
func (s *Sender) post(ctx context.Context, m *message) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.options.URL, bytes.NewReader(m.body))
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	now := s.options.Clock()
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "writ")
	request.Header.Set(HeaderID, m.id)
	request.Header.Set(HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	request.Header.Set(HeaderSignature, Sign(s.options.Secret, m.id, now, m.body))
	response, err := s.client.Do(request)
	if err != nil {
		return fmt.Errorf("post: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // read only
	_, _ = io.CopyN(io.Discard, response.Body, mostBytes)
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return fmt.Errorf("post: the receiver answered %d", response.StatusCode)
	}
	return nil
}

// settle drops a message that was taken, or that was tried often enough, and puts
// off any other.
func (s *Sender) settle(ctx context.Context, m *message, err error) {
	taken := Retried
	s.mu.Lock()
	switch {
	case err == nil:
		taken = Delivered
		s.forget(m)
	case m.attempts >= len(s.options.Pauses):
		taken = Dropped
		s.forget(m)
	default:
		m.due = s.options.Clock().Add(s.options.Pauses[m.attempts])
		m.attempts++
	}
	s.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		s.options.Log.WarnContext(ctx, "a webhook did not take a message", "id", m.id, "attempt", m.attempts, "given_up", taken == Dropped, "error", err)
	}
	if s.options.Done != nil {
		s.options.Done(taken)
	}
}

// forget is called with mu held.
func (s *Sender) forget(m *message) {
	for i, other := range s.waiting {
		if other == m {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			return
		}
	}
}
