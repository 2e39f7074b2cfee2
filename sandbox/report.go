// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"strings"
)

// Tier is a level of isolation; more is stronger, so tiers compare by order.
type Tier uint8

// The tiers. Those that need user namespaces or a delegated cgroup are not built and have no name here.
const (
	// TierNone is no isolation: nothing native may run.
	TierNone Tier = iota
	// T1 is what an unprivileged process can put around its child: no_new_privs, Landlock, seccomp,
	// resource limits, closed descriptors, a constructed environment, and a process group nobody leaves.
	T1
)

// String names the tier.
func (t Tier) String() string {
	switch t {
	case TierNone:
		return "none"
	case T1:
		return "T1"
	}
	return fmt.Sprintf("Tier(%d)", uint8(t))
}

// Enforcement says what holds a limit.
type Enforcement uint8

// The enforcements.
const (
	// EnforcedNot is nothing.
	EnforcedNot Enforcement = iota
	// EnforcedPolled is the agent, which looks every 10 to 100 ms and kills; it can be overshot.
	EnforcedPolled
	// EnforcedAgent is the agent, through which what is limited must pass; it cannot be overshot.
	EnforcedAgent
	// EnforcedKernel is the kernel.
	EnforcedKernel
)

// String names the enforcement.
func (e Enforcement) String() string {
	switch e {
	case EnforcedNot:
		return "none"
	case EnforcedPolled:
		return "polled"
	case EnforcedAgent:
		return "agent"
	case EnforcedKernel:
		return "kernel"
	}
	return fmt.Sprintf("Enforcement(%d)", uint8(e))
}

// LimitReport says what holds one limit, for one process and for the whole tree.
type LimitReport struct {
	Limit         Limit
	Process, Tree Enforcement
}

// Report says what this system gives a sandbox, for the log at start and for the operator.
type Report struct {
	// Tier is the highest tier that can be had.
	Tier Tier
	// Kernel is the release of the kernel, and Arch the machine as Go names it.
	Kernel, Arch string
	// LandlockABI is the version of Landlock, 0 where it is missing; LandlockHandled and LandlockMissing
	// are the rights it governs and those of later versions that it does not.
	LandlockABI                      int
	LandlockHandled, LandlockMissing []string
	// Seccomp says that filters can be installed and can kill.
	Seccomp bool
	// NoNewPrivs says that the agent itself runs under no_new_privs already.
	NoNewPrivs bool
	// ExecGain says that writable and executable memory can be refused.
	ExecGain bool
	// UserNamespaces is "available" or why one could not be made. Nothing here uses them yet.
	UserNamespaces string
	// UID and GID are whom programs run as; OwnUser says that this is not the agent's own user.
	UID, GID int
	OwnUser  bool
	// Limits has a row for every limit.
	Limits []LimitReport
	// Reasons say in words why the tier is not higher, and what is weaker than it could be.
	Reasons []string
}

// String is the report as a few lines of text.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "tier %v, kernel %s %s, Landlock ABI %d, seccomp %t, no_new_privs already %t, user namespaces: %s\n",
		r.Tier, r.Kernel, r.Arch, r.LandlockABI, r.Seccomp, r.NoNewPrivs, r.UserNamespaces)
	fmt.Fprintf(&b, "programs run as %d:%d (own user %t)\n", r.UID, r.GID, r.OwnUser)
	for _, l := range r.Limits {
		fmt.Fprintf(&b, "limit %v: process %v, tree %v\n", l.Limit, l.Process, l.Tree)
	}
	for _, reason := range r.Reasons {
		fmt.Fprintf(&b, "note: %s\n", reason)
	}
	return b.String()
}
