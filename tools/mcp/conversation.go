// SPDX-License-Identifier: Apache-2.0

package mcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// errOtherGeneration is returned when a server does not speak the stateless
// generation, as far as its answer shows.
var errOtherGeneration = errors.New("the MCP server does not speak " + stateless)

// conversation is one exchange with a server, in one generation of the protocol.
// It is used by one goroutine.
type conversation struct {
	client   *Client
	revision string
	session  string // Mcp-Session-Id; empty without one
	asked    int    // id of the last request
}

type object map[string]any

// open makes a session: initialize, then the notification that it was heard.
func (c *Client) open(ctx context.Context) (*conversation, error) {
	talk := &conversation{client: c}
	result, err := talk.ask(ctx, "initialize", object{
		"protocolVersion": sessions,
		"capabilities":    object{},
		"clientInfo":      object{"name": "writ", "version": "1"},
	})
	if err != nil {
		return nil, fmt.Errorf("initialize: %w", err)
	}
	var chosen struct {
		ProtocolVersion string `json:"protocolVersion"`
	}
	if err := json.Unmarshal(result, &chosen); err != nil {
		return nil, fmt.Errorf("initialize: %w: %w", ErrRefused, err)
	}
	if !slices.Contains(sessionRevisions, chosen.ProtocolVersion) {
		return nil, fmt.Errorf("initialize: %w: a revision that is not known", ErrRefused)
	}
	talk.revision = chosen.ProtocolVersion
	if err := talk.notify(ctx, "notifications/initialized"); err != nil {
		return nil, err
	}
	return talk, nil
}

// end closes the session. A server that does not care for that, or is gone, is
// none of our business any more.
func (t *conversation) end(ctx context.Context) {
	if t.session == "" {
		return
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodDelete, t.client.url, nil)
	if err != nil {
		return
	}
	request.Host, request.Header = t.client.host, t.header("")
	if response, err := t.client.http.Do(request); err == nil {
		_ = response.Body.Close() // nothing in it is read
	}
}

// params are those of tools/list.
func (t *conversation) params(cursor string) object {
	p := object{}
	if cursor != "" {
		p["cursor"] = cursor
	}
	if t.revision == stateless {
		p["_meta"] = object{
			"io.modelcontextprotocol/protocolVersion":    stateless,
			"io.modelcontextprotocol/clientInfo":         object{"name": "writ", "version": "1"},
			"io.modelcontextprotocol/clientCapabilities": object{},
		}
	}
	return p
}

func (t *conversation) header(method string) http.Header {
	header := make(http.Header)
	if t.revision != "" {
		header.Set("Mcp-Protocol-Version", t.revision)
	}
	if t.revision == stateless {
		header.Set("Mcp-Method", method)
	}
	if t.session != "" {
		header.Set("Mcp-Session-Id", t.session)
	}
	return header
}

func (t *conversation) notify(ctx context.Context, method string) error {
	body, err := json.Marshal(object{"jsonrpc": "2.0", "method": method}, json.Deterministic(true))
	if err != nil {
		return err
	}
	response, err := t.client.post(ctx, body, t.header(method))
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	_ = response.Body.Close() // nothing in it is read
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %w: HTTP status %d", method, ErrRefused, response.StatusCode)
	}
	return nil
}

// ask sends a request and returns its result.
func (t *conversation) ask(ctx context.Context, method string, params object) (jsontext.Value, error) {
	t.asked++
	body, err := json.Marshal(object{"jsonrpc": "2.0", "id": t.asked, "method": method, "params": params}, json.Deterministic(true))
	if err != nil {
		return nil, err
	}
	response, err := t.client.post(ctx, body, t.header(method))
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }() // what mattered of it was read
	if response.StatusCode != http.StatusOK {
		return nil, t.refused(fmt.Sprintf("HTTP status %d", response.StatusCode), response.StatusCode/100 == 4)
	}
	if err := t.keepSession(response.Header); err != nil {
		return nil, err
	}
	return t.answer(response)
}

func (t *conversation) keepSession(header http.Header) error {
	id := header.Get("Mcp-Session-Id")
	if id == "" || t.revision != "" {
		return nil // none, or not the answer to initialize
	}
	if len(id) > maxSession || strings.ContainsFunc(id, func(r rune) bool { return r < '!' || r > '~' }) {
		return fmt.Errorf("%w: a session id that is not visible ASCII", ErrRefused)
	}
	t.session = id
	return nil
}

// answer reads the answer to the last request, which is the whole body or one of
// the events of a stream.
func (t *conversation) answer(response *http.Response) (jsontext.Value, error) {
	if response.Header.Get("Content-Encoding") != "" {
		return nil, fmt.Errorf("%w: it has a content encoding", ErrRefused)
	}
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil {
		return nil, fmt.Errorf("%w: its content type is not readable", ErrRefused)
	}
	switch kind {
	case "application/json":
		data, err := drain(response.Body)
		if err != nil {
			return nil, err
		}
		result, mine, err := t.read(data)
		if err == nil && !mine {
			return nil, fmt.Errorf("%w: it answers another request", ErrRefused)
		}
		return result, err
	case "text/event-stream":
		return t.answerOf(newEvents(response.Body))
	default:
		return nil, fmt.Errorf("%w: content type %q", ErrRefused, kind)
	}
}

// answerOf returns the answer among the events of a stream; what the server says
// beside it (notifications, requests of its own) is passed over.
func (t *conversation) answerOf(stream *events) (jsontext.Value, error) {
	for {
		data, err := stream.next()
		if err != nil {
			return nil, err
		}
		if len(data) == 0 {
			continue
		}
		if result, mine, err := t.read(data); mine || err != nil {
			return result, err
		}
	}
}

// read reads one JSON-RPC message, and says whether it answers the last request.
func (t *conversation) read(data []byte) (result jsontext.Value, mine bool, err error) {
	var message struct {
		Version string         `json:"jsonrpc"`
		ID      jsontext.Value `json:"id"`
		Method  string         `json:"method"`
		Result  jsontext.Value `json:"result"`
		Error   *struct {
			Code int `json:"code"`
		} `json:"error"`
	}
	if err := json.Unmarshal(data, &message); err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if message.Version != "2.0" {
		return nil, false, fmt.Errorf("%w: not JSON-RPC 2.0", ErrRefused)
	}
	if message.Method != "" || !bytes.Equal(message.ID, fmt.Append(nil, t.asked)) {
		return nil, false, nil
	}
	if (message.Result == nil) == (message.Error == nil) {
		return nil, false, fmt.Errorf("%w: it has not either a result or an error", ErrRefused)
	}
	if message.Error != nil {
		return nil, true, t.refused(fmt.Sprintf("JSON-RPC error %d", message.Error.Code), true)
	}
	return message.Result, true, nil
}

// refused says that the server declined. A server that declines the stateless
// generation as a client's fault may speak the other.
func (t *conversation) refused(how string, clientsFault bool) error {
	if clientsFault && t.revision == stateless && t.asked == 1 {
		return fmt.Errorf("%w: %w: %s", errOtherGeneration, ErrRefused, how)
	}
	return fmt.Errorf("%w: %s", ErrRefused, how)
}
