// SPDX-License-Identifier: Apache-2.0

package query

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// everything stands for all records, those that are of no tenant too.
const everything = "*"

// Access says who may read what. Over TLS a reader is the SPIFFE ID of its certificate,
// and does what the configuration says, or nothing. A connection without TLS comes from
// whom the machine lets in, to a unix socket or loopback, and reads everything. The zero
// Access lets nobody read over TLS.
type Access struct {
	identify func(tls.ConnectionState) (string, error)
	readers  map[string]*writv1.Reader
}

// NewAccess returns the access that a configuration gives. identify returns the SPIFFE
// ID of a verified connection, "" where it proves none.
func NewAccess(readers []*writv1.Reader, identify func(tls.ConnectionState) (string, error)) Access {
	a := Access{identify: identify, readers: make(map[string]*writv1.Reader, len(readers))}
	for _, reader := range readers {
		a.readers[reader.GetSpiffeId()] = reader
	}
	return a
}

// caller is who reads, and which tenants' records it may.
type caller struct {
	id      string // "" without TLS
	tenants []string
}

// may returns the caller, or why it may not do what a role does.
func (a Access) may(ctx context.Context, role writv1.ReaderRole) (caller, error) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}, errors.New("nothing is known of the connection")
	}
	switch c := from.AuthInfo.(type) {
	case nil:
		return caller{tenants: []string{everything}}, nil
	case credentials.TLSInfo:
		return a.reader(c.State, role)
	default:
		if c.AuthType() == "insecure" {
			return caller{tenants: []string{everything}}, nil
		}
		return caller{}, fmt.Errorf("a connection of kind %s", c.AuthType())
	}
}

// reader returns who has a certificate, if the configuration gives it a role.
func (a Access) reader(state tls.ConnectionState, role writv1.ReaderRole) (caller, error) {
	if a.identify == nil {
		return caller{}, errors.New("no reader is configured")
	}
	id, err := a.identify(state)
	if err != nil {
		return caller{}, err
	}
	reader := a.readers[id]
	roles := reader.GetRoles()
	if len(roles) == 0 {
		roles = []writv1.ReaderRole{writv1.ReaderRole_READER_ROLE_AUDITOR}
	}
	switch {
	case id == "" || len(reader.GetTenants()) == 0:
		return caller{}, fmt.Errorf("%q is no reader", id)
	case !slices.Contains(roles, role):
		return caller{}, fmt.Errorf("%q has not the role %s", id, role)
	case role == writv1.ReaderRole_READER_ROLE_OPERATOR && !slices.Contains(reader.GetTenants(), everything):
		return caller{}, fmt.Errorf("%q is a reader of some tenants, and agents are of none", id)
	}
	return caller{id: id, tenants: reader.GetTenants()}, nil
}

// refused is what a caller is told that may not do what a role does. The log says why.
func refused(role writv1.ReaderRole) error {
	if role == writv1.ReaderRole_READER_ROLE_OPERATOR {
		return status.Error(codes.PermissionDenied, "you may not see agents; readers in the collector's configuration says who may")
	}
	return status.Error(codes.PermissionDenied, "you may read no records; readers in the collector's configuration says who may")
}

// narrow returns the filter with no more than its caller may read.
func narrow(filter *writv1.RecordFilter, tenants []string) (*writv1.RecordFilter, error) {
	asked := filter.GetTenant()
	switch {
	case slices.Contains(tenants, everything), asked != "" && slices.Contains(tenants, asked):
		return filter, nil
	case asked != "":
		return nil, status.Error(codes.PermissionDenied, "you may not read this tenant's records; readers in the collector's configuration says who may")
	case len(tenants) > 1:
		return nil, fmt.Errorf("%w: name one of the tenants that you may read: %s", ErrInvalid, strings.Join(tenants, ", "))
	}
	narrowed := &writv1.RecordFilter{}
	if filter != nil {
		narrowed = proto.CloneOf(filter)
	}
	narrowed.Tenant = tenants[0]
	return narrowed, nil
}

// readable returns those of some records that are of the tenants.
func readable(records []*writv1.StoredRecord, tenants []string) []*writv1.StoredRecord {
	if slices.Contains(tenants, everything) {
		return records
	}
	return slices.DeleteFunc(records, func(stored *writv1.StoredRecord) bool {
		record := &writv1.Record{}
		return proto.Unmarshal(stored.GetRecord(), record) != nil || !slices.Contains(tenants, record.GetTenant())
	})
}
