// SPDX-License-Identifier: Apache-2.0

package toolservice_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent/policy"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// asIs sends []byte as it is.
type asIs struct{ encoding.CodecV2 }

func (asIs) Marshal(v any) (mem.BufferSlice, error) {
	if data, ok := v.([]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(data)}, nil
	}
	return encoding.GetCodecV2("proto").Marshal(v)
}

func (asIs) Unmarshal(data mem.BufferSlice, v any) error {
	return encoding.GetCodecV2("proto").Unmarshal(data, v)
}

func (asIs) Name() string { return "proto" }

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// messageLimit is what the face takes with arguments of at most bodyBytes.
const messageLimit = bodyBytes + 256<<10

func TestARequestThatCannotBeReadIsRefusedAndRecorded(t *testing.T) {
	t.Parallel()
	good := encode(t, &writv1.ExecuteRequest{Envelope: say("hello")})
	// padded returns a good request with a field that is not known, of exactly so many bytes.
	padded := func(size int) []byte {
		head := protowire.AppendTag(append([]byte(nil), good...), 99, protowire.BytesType)
		rest := size - len(head)
		rest -= protowire.SizeVarint(uint64(rest)) // the length of what is left has the same number of digits
		data := protowire.AppendBytes(head, make([]byte, rest))
		if len(data) != size {
			t.Fatalf("made %d bytes, want %d", len(data), size)
		}
		return data
	}
	unknown := refusal{codes.InvalidArgument, "DECODE_ENVELOPE_INVALID", "stage.say", ""}
	malformed := refusal{codes.InvalidArgument, "DECODE_MALFORMED", "", ""}
	call := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "stage.say")
	call = protowire.AppendVarint(protowire.AppendTag(call, 88, protowire.VarintType), 1)
	envelope := protowire.AppendBytes(protowire.AppendTag(nil, 10, protowire.BytesType), call)
	for name, tc := range map[string]struct {
		data []byte
		want refusal
	}{
		"no protobuf":                   {[]byte{0xff, 0xff}, malformed},
		"a message that is cut":         {good[:len(good)-1], refusal{codes.InvalidArgument, "DECODE_MALFORMED", "", ""}},
		"text that is not UTF-8":        {protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), []byte{0xff}), malformed},
		"a field that is not known":     {append(append([]byte(nil), good...), 0xf8, 0x06, 0x01), unknown},
		"such a field in the call":      {protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), envelope), unknown},
		"one byte less than the limit":  {padded(messageLimit - 1), unknown},
		"as much as the limit":          {padded(messageLimit), unknown},
		"one byte over the limit":       {padded(messageLimit + 1), refusal{codes.InvalidArgument, "DECODE_TOO_LARGE", "", ""}},
		"all that the transport takes":  {padded(2 * messageLimit), refusal{codes.InvalidArgument, "DECODE_TOO_LARGE", "", ""}},
		"one byte over what that takes": {padded(2*messageLimit + 1), refusal{Code: codes.ResourceExhausted}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, echo)
			err := s.conn.Invoke(s.as("ann"), writv1.ToolService_Execute_FullMethodName, tc.data, &writv1.ExecuteResponse{}, grpc.ForceCodecV2(asIs{}))
			got, info := refusalOf(t, err)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("refusal %v (-want +got):\n%s", err, diff)
			}
			if info != nil && s.records(1, 0)[0].id != info.GetMetadata()["decision_id"] {
				t.Errorf("the refusal %v is not what was recorded", info)
			}
		})
	}
}

func TestAStreamsRequestWithAnUnknownFieldIsRefused(t *testing.T) {
	t.Parallel()
	s := newStage(t, echo)
	data := encode(t, &writv1.ExecuteStreamRequest{Request: &writv1.ExecuteRequest{Envelope: say("hello")}})
	data = protowire.AppendVarint(protowire.AppendTag(data, 99, protowire.VarintType), 1)
	stream, err := s.conn.NewStream(s.as("ann"), &writv1.ToolService_ServiceDesc.Streams[0], writv1.ToolService_ExecuteStream_FullMethodName, grpc.ForceCodecV2(asIs{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.SendMsg(data), stream.CloseSend()); err != nil {
		t.Fatal(err)
	}
	err = stream.RecvMsg(&writv1.ExecuteStreamResponse{})
	if got, _ := refusalOf(t, err); got.Reason != "DECODE_ENVELOPE_INVALID" {
		t.Errorf("refusal %v, want DECODE_ENVELOPE_INVALID", err)
	}
}

func TestArgumentsAreTakenUpToTheirLimit(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		size int
		want string
	}{
		"one byte less": {bodyBytes - 1, ""},
		"the limit":     {bodyBytes, ""},
		"one byte more": {bodyBytes + 1, "DECODE_TOO_LARGE"},
		"far more":      {bodyBytes + 200<<10, "DECODE_TOO_LARGE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, echo)
			text := strings.Repeat("x", tc.size-len(`{"text":""}`))
			_, err := s.client.Execute(s.as("ann"), &writv1.ExecuteRequest{Envelope: say(text)})
			got := ""
			if err != nil {
				r, _ := refusalOf(t, err)
				got = r.Reason
			}
			if got != tc.want {
				t.Errorf("arguments of %d bytes are refused with %q, want %q", tc.size, got, tc.want)
			}
		})
	}
}

func TestAFullEnvelopeFitsBesideFullArguments(t *testing.T) {
	t.Parallel()
	s := newStage(t, echo)
	for name, tc := range map[string]struct {
		more int
		want string
	}{
		"one byte less": {-1, ""},
		"the limit":     {0, ""},
		"one byte more": {1, "DECODE_TOO_LARGE"},
		"far more":      {20_000, "DECODE_TOO_LARGE"},
	} {
		envelope := say(strings.Repeat("x", bodyBytes-len(`{"text":""}`)))
		envelope.Retrieval = &writv1.Retrieval{}
		size := func() int {
			apart := proto.CloneOf(envelope)
			apart.ToolCall.Args = nil
			return proto.Size(apart)
		}
		for policy.MaxEnvelopeBytes+tc.more-size() > 240 {
			envelope.Retrieval.KbDocIds = append(envelope.Retrieval.KbDocIds, strings.Repeat("k", 200))
		}
		envelope.Session = strings.Repeat("s", max(1, policy.MaxEnvelopeBytes+tc.more-size()-3))
		for size() < policy.MaxEnvelopeBytes+tc.more {
			envelope.Session += "s"
		}
		_, err := s.client.Execute(s.as("ann"), &writv1.ExecuteRequest{Envelope: envelope})
		got := refusal{}
		if err != nil {
			got, _ = refusalOf(t, err)
		}
		if got.Reason != tc.want || got.Reason != "" && got.Tool != "stage.say" {
			t.Errorf("%s: an envelope of %d bytes is refused with %v, want %q", name, size(), got, tc.want)
		}
	}
}

func TestATraceparentIsTakenOrIgnored(t *testing.T) {
	t.Parallel()
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for name, tc := range map[string]struct {
		values []string
		want   string
	}{
		"one":             {[]string{good}, good},
		"none":            {nil, ""},
		"two":             {[]string{good, good}, ""},
		"another version": {[]string{"cc" + good[2:]}, ""},
		"capitals":        {[]string{strings.ToUpper(good)}, ""},
		"too short":       {[]string{good[:54]}, ""},
		"more parts":      {[]string{good + "-x"}, ""},
		"something long":  {[]string{strings.Repeat("x", 4096)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, echo)
			ctx := s.as("ann")
			for _, value := range tc.values {
				ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", value)
			}
			if _, err := s.client.Authorize(ctx, &writv1.AuthorizeRequest{Envelope: say("hello")}); err != nil {
				t.Fatal(err)
			}
			if got := s.records(1, 1)[0].decision.GetTraceParent(); got != tc.want {
				t.Errorf("traceparent %q, want %q", got, tc.want)
			}
		})
	}
}

func FuzzNoRequestBreaksTheFace(f *testing.F) {
	good, err := proto.Marshal(&writv1.ExecuteRequest{Envelope: say("hello"), IdempotencyKey: "k"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{0x0a, 0x00})
	f.Add([]byte{0xff})
	s := newStage(f, echo)
	f.Fuzz(func(t *testing.T, data []byte) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "ann")
		err := s.conn.Invoke(ctx, writv1.ToolService_Execute_FullMethodName, data, &writv1.ExecuteResponse{}, grpc.ForceCodecV2(asIs{}))
		if err == nil {
			return
		}
		if r, _ := refusalOf(t, err); r.Reason == "" || r.Reason == "AGENT_INTERNAL" {
			t.Errorf("%x: %v", data, err)
		}
	})
}
