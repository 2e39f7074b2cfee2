// SPDX-License-Identifier: Apache-2.0

// Package phoenixtest sends the run of a real agent to a real receiver of OTLP, Arize
// Phoenix, over gRPC and over HTTP, and reads the traces back through its API.
//
//	make phoenix
//
// Phoenix comes from PyPI into a venv of its own, which is too heavy for every "make
// test": the tests have the build tag "phoenix", and "make test-parts" runs them. It
// listens on loopback, keeps what it has in the test's directory, and calls nobody.
package phoenixtest
