// SPDX-License-Identifier: Apache-2.0

package enter_test

import (
	"errors"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/writ-dev/writ/sandbox/internal/enter"
)

func full() *enter.Plan {
	return &enter.Plan{
		Mode:           enter.Check,
		Parent:         1234,
		RefuseExecGain: true,
		Path:           "/bin/true",
		Args:           []string{"/bin/true", "", "a\nb"},
		Env:            []string{"A=b"},
		Limits:         []enter.Limit{{Resource: 7, Soft: 1, Hard: ^uint64(0)}},
		Filter:         []byte{1, 2, 3, 4, 5, 6, 7, 8},
	}
}

func TestPlanComesThroughWhole(t *testing.T) {
	t.Parallel()
	got, err := enter.Decode(full().Encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(full(), got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

func TestPlanThatIsCutOrLongerIsRefused(t *testing.T) {
	t.Parallel()
	b := full().Encode()
	for n := range b {
		if _, err := enter.Decode(b[:n]); err == nil {
			t.Errorf("a plan cut to %d of %d bytes was read", n, len(b))
		}
	}
	if _, err := enter.Decode(append(b, 0)); err == nil {
		t.Error("a plan with a byte after it was read")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(full().Encode())
	f.Add([]byte{0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := enter.Decode(b)
		if err != nil {
			return
		}
		again, err := enter.Decode(p.Encode())
		if err != nil {
			t.Fatalf("what was read is not read again: %v", err)
		}
		if diff := cmp.Diff(p, again); diff != "" {
			t.Errorf("plan (-first +second):\n%s", diff)
		}
	})
}

func TestStatusIsSuccessOnlyWhenItSaysSo(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		status string
		want   error
	}{
		{"ready and then closed", "R", nil},
		{"closed without a word", "", enter.ErrDied},
		{"an unknown word", "X", enter.ErrDied},
		{"a failure that is cut", "F\x08", enter.ErrDied},
		{"ready twice", "RR", enter.ErrDied},
		{"a failure before", "F\x08\x01\x00", syscall.EPERM},
		{"a failure of exec itself", "RF\x0b\x02\x00", syscall.ENOENT},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := enter.Started([]byte(tt.status)); !errors.Is(err, tt.want) {
				t.Errorf("Started = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestStepsHaveNames(t *testing.T) {
	t.Parallel()
	for s := enter.StepPlan; s <= enter.StepExec; s++ {
		if s.String() == enter.Step(200).String() {
			t.Errorf("step %d has no name", s)
		}
	}
}
