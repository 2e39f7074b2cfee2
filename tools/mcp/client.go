// SPDX-License-Identifier: Apache-2.0

package mcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// maxAnswer bounds one answer of a server, maxListing all that it lists.
	maxAnswer  = 4 << 20
	maxListing = 16 << 20
	// maxPages and maxTools bound a listing too.
	maxPages = 100
	maxTools = 10_000
	// maxCursor and maxSession bound what a server has us send back.
	maxCursor  = 4096
	maxSession = 1024
	// maxName is the longest name that a tool may have (McpBinding.tool).
	maxName = 128
	// listTime is how long a server may take for its whole listing.
	listTime = 30 * time.Second
	// stateless is the revision without sessions; sessions is the one before it.
	stateless = "2026-07-28"
	sessions  = "2025-11-25"
)

// sessionRevisions are the revisions with sessions over streamable HTTP that the
// client understands.
var sessionRevisions = []string{sessions, "2025-06-18", "2025-03-26"}

// ErrRefused is returned when a server does not answer as the protocol says.
var ErrRefused = errors.New("the MCP server's answer is not taken")

// Definition is a tool as a server lists it.
type Definition struct {
	// Name is the tool's name.
	Name string
	// JSON is the whole definition as it came: one JSON object without duplicate
	// keys, in valid UTF-8.
	JSON []byte
}

// Client asks one MCP server what it lists. It is safe for use by several
// goroutines.
type Client struct {
	http *http.Client
	url  string
	host string
}

// ThroughEnvoy returns the client of an upstream of the catalogue. It reaches it
// by Envoy's listener for the agent, "unix:/path" or the path alone, and has no
// other way out.
func ThroughEnvoy(listener, upstream, path string) *Client {
	socket := strings.TrimPrefix(listener, "unix:")
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &Client{http: newHTTP(dial), url: (&url.URL{Scheme: "http", Host: upstream, Path: path}).String(), host: upstream}
}

// AtURL returns the client of the server at an http or https URL: for an operator
// who reviews its definitions, never for the agent.
func AtURL(address string) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("address of the MCP server: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("address of the MCP server: %q is not an http or https URL", u.Redacted())
	}
	return &Client{http: newHTTP((&net.Dialer{}).DialContext), url: u.String(), host: u.Host}, nil
}

func newHTTP(dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            dial,
			DisableCompression:     true,
			MaxResponseHeaderBytes: 64 << 10,
			ResponseHeaderTimeout:  listTime,
			TLSHandshakeTimeout:    10 * time.Second,
			DisableKeepAlives:      true, // a listing is rare; nothing is left open between
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       listTime,
	}
}

// List returns all tools that the server lists, in its order. It tries the
// stateless generation first, and opens a session where the server does not
// speak it.
func (c *Client) List(ctx context.Context) ([]Definition, error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	definitions, err := c.list(ctx, &conversation{client: c, revision: stateless})
	if err == nil || !errors.Is(err, errOtherGeneration) {
		return definitions, err
	}
	talk, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer talk.end(ctx)
	return c.list(ctx, talk)
}

// Pinned is a tool that a server lists, with the digest to pin it by.
type Pinned struct {
	// Name is the tool's name.
	Name string
	// Digest is that of its definition; empty where it has none.
	Digest string
	// Err says why it has none: its definition can be read in two ways.
	Err error
}

// Pins returns all tools that the server lists, in its order, with what digest
// says of their definitions. It is for an operator, who reads the definitions
// before the digests go into a bundle.
func (c *Client) Pins(ctx context.Context, digest func(definition []byte) (string, error)) ([]Pinned, error) {
	definitions, err := c.List(ctx)
	if err != nil {
		return nil, err
	}
	pins := make([]Pinned, 0, len(definitions))
	for _, definition := range definitions {
		sum, err := digest(definition.JSON)
		pins = append(pins, Pinned{Name: definition.Name, Digest: sum, Err: err})
	}
	return pins, nil
}

// list reads every page.
func (c *Client) list(ctx context.Context, talk *conversation) ([]Definition, error) {
	var listing listing
	cursor := ""
	for range maxPages {
		result, err := talk.ask(ctx, "tools/list", talk.params(cursor))
		if err != nil {
			return nil, fmt.Errorf("tools/list: %w", err)
		}
		if cursor, err = listing.add(result); err != nil {
			return nil, fmt.Errorf("tools/list: %w", err)
		}
		if cursor == "" {
			return listing.definitions, nil
		}
	}
	return nil, fmt.Errorf("%w: more than %d pages of tools", ErrRefused, maxPages)
}

// listing is what was listed so far.
type listing struct {
	definitions []Definition
	names       map[string]bool
	bytes       int
}

// add takes a page and returns the cursor of the next; empty after the last.
func (l *listing) add(result jsontext.Value) (string, error) {
	var page struct {
		Tools      []jsontext.Value `json:"tools"`
		NextCursor string           `json:"nextCursor"`
	}
	if err := json.Unmarshal(result, &page); err != nil {
		return "", fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if page.Tools == nil {
		return "", fmt.Errorf("%w: no list of tools", ErrRefused)
	}
	if len(page.NextCursor) > maxCursor || len(l.definitions)+len(page.Tools) > maxTools {
		return "", fmt.Errorf("%w: too many tools, or too long a cursor", ErrRefused)
	}
	for _, raw := range page.Tools {
		if err := l.addTool(raw); err != nil {
			return "", err
		}
	}
	return page.NextCursor, nil
}

func (l *listing) addTool(raw jsontext.Value) error {
	var tool struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(raw, &tool); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	l.bytes += len(raw)
	switch {
	case raw.Kind() != '{' || tool.Name == "" || len(tool.Name) > maxName:
		return fmt.Errorf("%w: a tool without a name, or with too long a one", ErrRefused)
	case l.names[tool.Name]:
		return fmt.Errorf("%w: two tools have the name %q", ErrRefused, tool.Name)
	case l.bytes > maxListing:
		return fmt.Errorf("%w: the listing has more than %d bytes", ErrRefused, maxListing)
	}
	if l.names == nil {
		l.names = make(map[string]bool)
	}
	l.names[tool.Name] = true
	l.definitions = append(l.definitions, Definition{Name: tool.Name, JSON: bytes.Clone(raw)})
	return nil
}

// post sends one message. The caller MUST close the answer's body.
func (c *Client) post(ctx context.Context, body []byte, header http.Header) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Host, request.Header = c.host, header
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json, text/event-stream")
	return c.http.Do(request)
}

// drain reads a body to its end, within bounds.
func drain(body io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxAnswer {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrRefused, maxAnswer)
	}
	return data, nil
}
