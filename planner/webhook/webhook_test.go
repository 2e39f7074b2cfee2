// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-dev/writ/planner/webhook"
)

var secret = bytes.Repeat([]byte("s"), 32)

// got is one attempt as the receiver saw it.
type got struct {
	id, body string
	err      error
}

// receiver answers with the given statuses, one after the other, then 204.
func receiver(t *testing.T, statuses ...int) (url string, attempts <-chan got) {
	t.Helper()
	seen := make(chan got, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = webhook.Verify(secret, r.Header, body, time.Now())
		}
		status := http.StatusNoContent
		if len(statuses) > 0 {
			status, statuses = statuses[0], statuses[1:]
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		seen <- got{r.Header.Get(webhook.HeaderID), string(body), err}
	}))
	t.Cleanup(server.Close)
	return server.URL, seen
}

// running returns a sender that runs, and what it says of attempts.
func running(t *testing.T, url string, pauses ...time.Duration) (*webhook.Sender, <-chan webhook.Taken) {
	t.Helper()
	taken := make(chan webhook.Taken, 100)
	sender, err := webhook.New(webhook.Options{
		URL: url, Secret: secret, Clock: time.Now, Log: slog.New(slog.DiscardHandler), Pauses: pauses,
		Done: func(t webhook.Taken) { taken <- t },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { sender.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return sender, taken
}

func TestAMessageComesSignedAndOnce(t *testing.T) {
	t.Parallel()
	url, attempts := receiver(t)
	sender, taken := running(t, url)
	if err := sender.Send("msg_1", []byte(`{"a":1}`)); err != nil {
		t.Fatal(err)
	}
	if g := <-attempts; g.id != "msg_1" || g.body != `{"a":1}` || g.err != nil {
		t.Errorf("got %+v", g)
	}
	if got := <-taken; got != webhook.Delivered {
		t.Errorf("taken = %d, want Delivered", got)
	}
}

func TestAMessageThatIsNotTakenIsTriedAgainUnderItsId(t *testing.T) {
	t.Parallel()
	url, attempts := receiver(t, http.StatusInternalServerError, http.StatusFound)
	sender, taken := running(t, url, time.Millisecond, time.Millisecond)
	if err := sender.Send("msg_1", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	for i, want := range []webhook.Taken{webhook.Retried, webhook.Retried, webhook.Delivered} {
		if g := <-attempts; g.id != "msg_1" || g.err != nil {
			t.Errorf("attempt %d: %+v", i, g)
		}
		if got := <-taken; got != want {
			t.Errorf("attempt %d: taken = %d, want %d", i, got, want)
		}
	}
}

func TestAMessageIsGivenUpInTheEnd(t *testing.T) {
	t.Parallel()
	url, _ := receiver(t, 500, 500, 500, 500)
	sender, taken := running(t, url, time.Millisecond)
	if err := sender.Send("msg_1", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	if first, second := <-taken, <-taken; first != webhook.Retried || second != webhook.Dropped {
		t.Errorf("taken = %d, %d", first, second)
	}
}

func TestSendRefusesWhenTooManyWait(t *testing.T) {
	t.Parallel()
	sender, err := webhook.New(webhook.Options{URL: "https://a.example", Secret: secret, Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if err := sender.Send("m", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := sender.Send("m", nil); !errors.Is(err, webhook.ErrFull) {
		t.Errorf("err = %v, want ErrFull", err)
	}
	if err := sender.Send("m", make([]byte, 1<<20)); err == nil {
		t.Error("a message of a megabyte is taken")
	}
}

func TestMessagesGoWhereNobodyReadsThemOnTheWay(t *testing.T) {
	t.Parallel()
	for address, ok := range map[string]bool{
		"https://chat.example/hook": true, "http://127.0.0.1:8080/": true, "http://[::1]/": true, "http://localhost/": true,
		"http://chat.example/hook": false, "http://127.0.0.1.example/": false, "ftp://localhost/": false, "https://u:p@chat.example/": false,
		"https:///hook": false, "": false, "https://a.example/#f": false,
	} {
		if err := webhook.CheckURL(address); (err == nil) != ok {
			t.Errorf("CheckURL(%q) = %v", address, err)
		}
	}
}

// The specification's own example: its secret, message and signature.
func TestTheSignatureIsThatOfTheSpecification(t *testing.T) {
	t.Parallel()
	secret, err := webhook.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := webhook.Sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
}

func TestOnlyWhatWasSignedLatelyWithTheSecretIsVerified(t *testing.T) {
	t.Parallel()
	now := time.Unix(1614265330, 0)
	header := http.Header{}
	header.Set(webhook.HeaderID, "m")
	header.Set(webhook.HeaderTimestamp, "1614265330")
	header.Set(webhook.HeaderSignature, "v1a,xyz "+webhook.Sign(secret, "m", now, []byte("x")))
	if err := webhook.Verify(secret, header, []byte("x"), now); err != nil {
		t.Error(err)
	}
	if err := webhook.Verify(secret, header, []byte("y"), now); err == nil {
		t.Error("another body is verified")
	}
	if err := webhook.Verify(secret, header, []byte("x"), now.Add(6*time.Minute)); err == nil {
		t.Error("an old message is verified")
	}
	if err := webhook.Verify(bytes.Repeat([]byte("t"), 32), header, []byte("x"), now); err == nil {
		t.Error("another secret verifies")
	}
}

func TestASecretIsReadFromItsFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "secret")
	for text, ok := range map[string]bool{
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n": true, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw": false, "whsec_YWJj": false, "whsec_!": false,
		"whsec_" + strings.Repeat("YWJj", 100): false,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := webhook.ReadSecret(name); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}
