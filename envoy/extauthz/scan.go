// SPDX-License-Identifier: Apache-2.0

package extauthz

import (
	"errors"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/envoy/identity"
	"github.com/writ-dev/writ/envoy/resources"
	"github.com/writ-dev/writ/wire"
)

// errWire says that a CheckRequest is not well-formed protobuf.
var errWire = errors.New("the check request is not well-formed")

// Numbers of the fields that are read, of the messages that hold them
// (envoy/service/auth/v3, envoy/config/core/v3).
const (
	checkAttributes = 1

	attributesSource     = 1
	attributesRequest    = 4
	attributesExtensions = 10
	attributesMetadata   = 11

	peerPrincipal = 4

	requestHTTP = 2

	httpMethod    = 2
	httpPath      = 4
	httpHost      = 5
	httpScheme    = 6
	httpBody      = 11
	httpRawBody   = 12
	httpHeaderMap = 13

	mapHeaders = 1

	headerKey   = 1
	headerValue = 2
	headerRaw   = 3

	entryKey   = 1
	entryValue = 2
)

// check is what is read of a CheckRequest: by a scan of its wire form, because
// reading all of it costs twice as much (BenchmarkScan) and is a fifth of what a
// server costs that does nothing. The fuzz test holds the scan against the
// generated reader.
type check struct {
	request  wire.Request
	upstream string
	evidence identity.Evidence
	// most is how many bytes of a body Envoy sends at most; 0 if it does not say.
	most int
	// body is the text form of the body, in the place of which Envoy sends the
	// raw form when it is told to.
	body string
	// broken is set when the request could not be read.
	broken error
}

// scan reads a CheckRequest. The check keeps parts of data.
func (c *check) scan(data []byte) error {
	if err := c.messages(data, checkAttributes, c.attributes); err != nil {
		return err
	}
	if len(c.request.Body) == 0 && c.body != "" {
		c.request.Body = []byte(c.body)
	}
	c.evidence.Headers = c.request.Headers
	return nil
}

// each calls visit with every field of a message that holds bytes. Values of
// other types are checked for their form and passed over.
func each(data []byte, visit func(number protowire.Number, value []byte) error) error {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return errWire
		}
		data = data[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, data); n < 0 {
				return errWire
			}
			data = data[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(data)
		if n < 0 {
			return errWire
		}
		data = data[n:]
		if err := visit(number, value); err != nil {
			return err
		}
	}
	return nil
}

// messages calls read with every occurrence of one field: as the generated
// reader merges them.
func (c *check) messages(data []byte, field protowire.Number, read func([]byte) error) error {
	return each(data, func(number protowire.Number, value []byte) error {
		if number != field {
			return nil
		}
		return read(value)
	})
}

func (c *check) attributes(data []byte) error {
	return each(data, func(number protowire.Number, value []byte) error {
		switch number {
		case attributesSource:
			return c.source(value)
		case attributesRequest:
			return c.messages(value, requestHTTP, c.http)
		case attributesExtensions:
			return c.extension(value)
		case attributesMetadata:
			return c.metadata(value)
		}
		return nil
	})
}

func (c *check) source(data []byte) error {
	return each(data, func(number protowire.Number, value []byte) error {
		if number == peerPrincipal {
			c.evidence.Peer = string(value)
		}
		return nil
	})
}

// extension reads one entry of the context extensions.
func (c *check) extension(data []byte) error {
	var key, text []byte
	err := each(data, func(number protowire.Number, value []byte) error {
		switch number {
		case entryKey:
			key = value
		case entryValue:
			text = value
		}
		return nil
	})
	switch string(key) {
	case resources.UpstreamKey:
		c.upstream = string(text)
	case resources.BodyKey:
		// Text that is no number says nothing.
		c.most, _ = strconv.Atoi(string(text))
	}
	return err
}

// metadata reads what jwt_authn left. It is there on few routes, and read by the
// generated reader.
func (c *check) metadata(data []byte) error {
	var metadata corev3.Metadata
	if err := proto.Unmarshal(data, &metadata); err != nil {
		return errors.Join(errWire, err)
	}
	if token, found := metadata.GetFilterMetadata()[resources.JWTNamespace]; found {
		c.evidence.Token = token
	}
	return nil
}

func (c *check) http(data []byte) error {
	return each(data, func(number protowire.Number, value []byte) error {
		switch number {
		case httpMethod:
			c.request.Method = string(value)
		case httpPath:
			c.request.Path = string(value)
		case httpHost:
			c.request.Authority = string(value)
		case httpScheme:
			c.request.Scheme = string(value)
		case httpBody:
			c.body = string(value)
		case httpRawBody:
			c.request.Body = value
		case httpHeaderMap:
			return c.messages(value, mapHeaders, c.header)
		}
		return nil
	})
}

// header reads one header; the raw value counts where there is one. Pseudo
// headers stand in fields of their own.
func (c *check) header(data []byte) error {
	var key, text, raw []byte
	err := each(data, func(number protowire.Number, value []byte) error {
		switch number {
		case headerKey:
			key = value
		case headerValue:
			text = value
		case headerRaw:
			raw = value
		}
		return nil
	})
	if len(raw) > 0 {
		text = raw
	}
	if err == nil && (len(key) == 0 || key[0] != ':') {
		c.request.Headers = append(c.request.Headers, wire.Header{Name: string(key), Value: string(text)})
	}
	return err
}
