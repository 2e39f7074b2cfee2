// SPDX-License-Identifier: Apache-2.0

package killtest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// clientCount clients send at once, each clientPeriod apart: 800 calls a second
	// where the machine keeps up.
	clientCount  = 32
	clientPeriod = 40 * time.Millisecond
	// paymentID is the payment that every tenant has.
	paymentID = "pay_1"
	// deniedMinor is more than the bundle lets anybody refund.
	deniedMinor = 20_000
)

// names are the tenants, one a client.
func names() []string {
	made := make([]string, clientCount)
	for i := range made {
		made[i] = fmt.Sprintf("tenant-%02d", i)
	}
	return made
}

// kind is what a call is for.
type kind int

const (
	refund kind = iota
	// tooMuch is a refund that must be denied.
	tooMuch
	read
)

// attempt is one request, as its client remembers it.
type attempt struct {
	client *client
	kind   kind
	// trace is the traceparent, which no other attempt has.
	trace string
	// key is the idempotency key: a retry has that of the first.
	key   string
	minor int64
	// quiet says that nobody else called for the same user at the same time.
	quiet bool

	// What follows is written by send.

	began, ended time.Time
	status       int
	// denial is what writ said, nil where it let the call through or said nothing.
	denial *denial
	// err is why there is no answer at all.
	err error
}

// denial is a problem of writ's (RFC 9457).
type denial struct {
	Reason            string `json:"reason"`
	DecisionID        string `json:"decision_id"`
	EarlierDecisionID string `json:"earlier_decision_id"`
}

// succeeded says that the client got what it asked for.
func (a *attempt) succeeded() bool { return a.err == nil && a.status == http.StatusOK }

// answered says that the client has an answer that writ stands for.
func (a *attempt) answered() bool { return a.succeeded() || a.denial != nil }

func (a *attempt) String() string {
	said := fmt.Sprint(a.status)
	switch {
	case a.err != nil:
		said = a.err.Error()
	case a.denial != nil:
		said += fmt.Sprintf(" %+v", *a.denial)
	}
	return fmt.Sprintf("%s %s %s (%s)", a.client.tenant, []string{"refund", "refund of too much", "read"}[a.kind], a.key, said)
}

// client is one caller: a user of a tenant of its own.
type client struct {
	desk   *desk
	number int
	tenant string
	token  string
	// count is of the attempts so far.
	count atomic.Int64
}

// next makes a call of the mix: 2 refunds, 1 of too much, 5 reads.
func (c *client) next() *attempt {
	n := c.count.Add(1)
	switch (n + int64(c.number)) % 8 {
	case 0, 4:
		return c.make(n, refund, 1+n%100)
	case 2:
		return c.make(n, tooMuch, deniedMinor)
	default:
		return c.make(n, read, 0)
	}
}

// probe makes a read.
func (c *client) probe() *attempt { return c.make(c.count.Add(1), read, 0) }

// make makes the client's nth attempt.
func (c *client) make(n int64, kind kind, minor int64) *attempt {
	return &attempt{
		client: c, kind: kind, minor: minor, key: fmt.Sprintf("key-%d-%d", c.number, n),
		trace: fmt.Sprintf("00-%016x%016x-%016x-01", c.number+1, n, n),
	}
}

// retry makes the same call again, under the same idempotency key.
func (a *attempt) retry() *attempt {
	again := a.client.make(a.client.count.Add(1), a.kind, a.minor)
	again.key = a.key
	return again
}

func (c *client) request(ctx context.Context, a *attempt) (*http.Request, error) {
	method, path, body := http.MethodPost, "/v1/tenants/"+c.tenant+"/refunds",
		fmt.Sprintf(`{"payment_id":%q,"amount":{"currency":"EUR","minor":%d},"reason":%q}`, paymentID, a.minor, a.key)
	if a.kind == read {
		method, path, body = http.MethodGet, "/v1/tenants/"+c.tenant+"/payments/"+paymentID, ""
	}
	address := c.desk.config.GetEnvoy().GetListener()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Host = domain
	request.Header.Set("Authorization", c.token)
	request.Header.Set("Idempotency-Key", a.key)
	request.Header.Set("Traceparent", a.trace)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	return request, nil
}

// send makes the attempt through Envoy and writes down what came of it.
func (c *client) send(ctx context.Context, a *attempt) {
	a.began = time.Now()
	a.err = c.exchange(ctx, a)
	a.ended = time.Now()
}

func (c *client) exchange(ctx context.Context, a *attempt) error {
	request, err := c.request(ctx, a)
	if err != nil {
		return err
	}
	response, err := c.desk.transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	a.status = response.StatusCode
	if form, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); form == "application/problem+json" {
		a.denial = &denial{}
		return json.Unmarshal(body, a.denial)
	}
	return nil
}

// load is calls that go on until they are told to stop.
type load struct {
	// answers gets a word for each answer of writ's, if somebody waits for one.
	answers chan struct{}
	stop    context.CancelFunc
	wait    sync.WaitGroup
	made    [clientCount][]*attempt
}

// startLoad has every client call, evenly apart.
func (d *desk) startLoad() *load {
	l := &load{answers: make(chan struct{})}
	ctx, stop := context.WithCancel(d.t.Context())
	l.stop = stop
	for i, c := range d.clients {
		l.wait.Go(func() {
			tick := time.NewTicker(clientPeriod)
			defer tick.Stop()
			for {
				a := c.next()
				// A call that has begun is waited for, whatever becomes of it.
				c.send(context.WithoutCancel(ctx), a)
				l.made[i] = append(l.made[i], a)
				if a.answered() {
					select {
					case l.answers <- struct{}{}:
					default:
					}
				}
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	return l
}

// end stops the calls, and returns all that were made.
func (l *load) end() []*attempt {
	l.stop()
	l.wait.Wait()
	var all []*attempt
	for _, made := range l.made {
		all = append(all, made...)
	}
	return all
}
