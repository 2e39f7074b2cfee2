// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package sandbox_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-dev/writ/sandbox"
)

func TestProbeSaysWhatItFound(t *testing.T) {
	t.Parallel()
	r := sandbox.Probe()
	if len(r.Reasons) == 0 || r.Kernel == "" || r.UserNamespaces == "" {
		t.Errorf("the report is silent: %+v", r)
	}
	if (r.Tier == sandbox.T1) != (r.LandlockABI >= 6 && r.Seccomp || r.OwnUser && r.LandlockABI >= 4 && r.Seccomp) {
		t.Errorf("tier %v with Landlock ABI %d, seccomp %t", r.Tier, r.LandlockABI, r.Seccomp)
	}
	var limits []sandbox.Limit
	for _, l := range r.Limits {
		limits = append(limits, l.Limit)
	}
	for l := sandbox.LimitWall; l <= sandbox.LimitOutput; l++ {
		if !slices.Contains(limits, l) {
			t.Errorf("limit %v is not in the report", l)
		}
		if !strings.Contains(r.String(), "limit "+l.String()) {
			t.Errorf("limit %v is not in the text:\n%v", l, r)
		}
	}
	if os.Geteuid() == 0 && r.OwnUser && r.UID == 0 {
		t.Error("programs would run as root")
	}
}

func TestTiersCompareByStrength(t *testing.T) {
	t.Parallel()
	if sandbox.TierNone >= sandbox.T1 {
		t.Error("T1 is not above none")
	}
	if got := sandbox.TierNone.String() + " " + sandbox.T1.String(); got != "none T1" {
		t.Errorf("tiers are named %s", got)
	}
}

func TestProcessLinesAreReadAsTheKernelWritesThem(t *testing.T) {
	t.Parallel()
	const rest = " 1 77 77 0 -1 4194560 100 0 0 0 3 4 5 6 20 0 9 0 100 1000 200 18446744073709551615"
	tests := []struct {
		name, line string
		group      int
		dead, ok   bool
	}{
		{"a plain name", "42 (cat) S" + rest, 77, false, true},
		{"a name that looks like the rest", "42 (x) Z 1 1 (y) R" + rest, 77, false, true},
		{"a name with line ends", "42 (a\nb) S" + rest, 77, false, true},
		{"nothing", "", 0, false, false},
		{"a line that is cut", "42 (cat) S 1 77", 0, false, false},
		{"a number that is none", "42 (cat) S" + strings.Replace(rest, "77", "x7", 1), 0, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			st, ok := sandbox.ParseStat([]byte(tt.line))
			if ok != tt.ok || ok && sandbox.GroupOf(st) != tt.group {
				t.Errorf("parseStat = %+v, %t", st, ok)
			}
			if ok && sandbox.TimeOf(st) != 180*time.Millisecond {
				t.Errorf("processor time is %v", sandbox.TimeOf(st))
			}
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (cat) S 1 77 77 0 -1 4194560 100 0 0 0 3 4 5 6 20 0 9 0 100 1000"))
	f.Add([]byte(") ) ) "))
	f.Fuzz(func(_ *testing.T, line []byte) {
		sandbox.ParseStat(line)
		sandbox.ParseAnonymous(line)
	})
}

func TestMemoryOfAProcessIsWhatNoFileHolds(t *testing.T) {
	t.Parallel()
	const status = "Name:\tRssAnon: 9 kB\\n\nVmRSS:\t 900 kB\nRssAnon:\t     100 kB\nRssFile:\t 700 kB\nRssShmem:\t 20 kB\nVmSwap:\t 3 kB\n"
	if got := sandbox.ParseAnonymous([]byte(status)); got != 123<<10 {
		t.Errorf("parseAnonymous = %d, want %d", got, 123<<10)
	}
}
