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

// Access says who may read which records. Over TLS a reader is the SPIFFE ID of its
// certificate, and reads what the configuration says, or nothing. A connection without
// TLS comes from whom the machine lets in, to a unix socket or loopback, and reads
// everything. The zero Access lets nobody read over TLS.
type Access struct {
	identify func(tls.ConnectionState) (string, error)
	tenants  map[string][]string
}

// NewAccess returns the access that a configuration gives. identify returns the SPIFFE
// ID of a verified connection, "" where it proves none.
func NewAccess(readers []*writv1.Reader, identify func(tls.ConnectionState) (string, error)) Access {
	a := Access{identify: identify, tenants: make(map[string][]string, len(readers))}
	for _, reader := range readers {
		a.tenants[reader.GetSpiffeId()] = reader.GetTenants()
	}
	return a
}

// tenantsOf returns the tenants whose records the caller may read.
func (a Access) tenantsOf(ctx context.Context) ([]string, error) {
	caller, ok := peer.FromContext(ctx)
	if !ok {
		return nil, errors.New("nothing is known of the connection")
	}
	switch c := caller.AuthInfo.(type) {
	case nil:
		return []string{everything}, nil
	case credentials.TLSInfo:
		if a.identify == nil {
			return nil, errors.New("no reader is configured")
		}
		id, err := a.identify(c.State)
		if err != nil {
			return nil, err
		}
		if tenants := a.tenants[id]; id != "" && len(tenants) > 0 {
			return tenants, nil
		}
		return nil, fmt.Errorf("%q is no reader", id)
	default:
		if c.AuthType() == "insecure" {
			return []string{everything}, nil
		}
		return nil, fmt.Errorf("a connection of kind %s", c.AuthType())
	}
}

// fleet says why the caller may not see agents and what is wrong with them; nil where it
// may.
func (a Access) fleet(ctx context.Context) error {
	tenants, err := a.tenantsOf(ctx)
	if err == nil && !slices.Contains(tenants, everything) {
		err = errors.New("a reader of some tenants, and agents are of none")
	}
	return err
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
