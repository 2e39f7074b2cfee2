// SPDX-License-Identifier: Apache-2.0

package toolservice

import (
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/writ-dev/writ/proto/reasons"
)

// maxMessage bounds a status message, which travels in a header.
const maxMessage = 1024

// details is what a refusal says beside its reason (AIP-193: whatever the message
// varies by).
type details map[string]string

// details returns those of a call that was admitted. The tool is the one that the
// caller named, whether there is such a tool or not.
func (in *incoming) details() details {
	admission := in.admission
	d := details{"decision_id": admission.ID(), "record_index": strconv.FormatUint(admission.RecordIndex(), 10), "tool": in.tool}
	if id := admission.ApprovalID(); id != "" {
		d["approval_id"] = id
	}
	if id := admission.EarlierID(); id != "" {
		d["earlier_decision_id"] = id
	}
	return d
}

// refused returns a refusal as a gRPC status: its code by the table of
// proto/reasons, its reason and details in google.rpc.ErrorInfo.
func refused(refusal *reasons.Error, d details) error {
	code := reasons.On(refusal.Reason).GRPC
	if code == codes.OK {
		code = codes.Internal // a refusal that looks like success is a fault of ours
	}
	d["field"] = clip(refusal.Field)
	message := clip(refusal.Message)
	parts := []protoadapt.MessageV1{&errdetails.ErrorInfo{
		Reason:   reasons.Name(refusal.Reason),
		Domain:   reasons.Domain,
		Metadata: d,
	}}
	if refusal.Field != "" && code == codes.InvalidArgument {
		parts = append(parts, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{
			Field:       clip(refusal.Field),
			Description: message,
			Reason:      reasons.Name(refusal.Reason),
		}}})
	}
	plain := status.New(code, message)
	detailed, err := plain.WithDetails(parts...)
	if err != nil {
		return plain.Err() // details that do not encode must not hide the refusal
	}
	return detailed.Err()
}

// clip returns s as valid UTF-8 of bounded length.
func clip(s string) string {
	if len(s) > maxMessage {
		s = s[:maxMessage]
	}
	return strings.ToValidUTF8(s, "")
}
