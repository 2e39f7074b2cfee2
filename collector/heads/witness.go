// SPDX-License-Identifier: Apache-2.0

package heads

import (
	"net/http"
	"time"
)

const (
	// witnessTime bounds a call to a witness.
	witnessTime = 5 * time.Second
	// witnessBytes bounds what a witness answers: a signature line, or a size.
	witnessBytes = 16 << 10
)

// witnessClient is how witnesses are asked: they are named by the operator, and send
// nobody elsewhere. Tessera reads all that they answer, so that the bound is here.
func witnessClient() *http.Client {
	return &http.Client{
		Timeout:       witnessTime,
		Transport:     bounded{http.DefaultTransport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded bounds the bodies of answers.
type bounded struct{ http.RoundTripper }

// RoundTrip does the request.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		response.Body = http.MaxBytesReader(nil, response.Body, witnessBytes)
	}
	return response, err
}
