// SPDX-License-Identifier: Apache-2.0

package policy

// contract leaves no check: bundles have no contracts yet (docs/status.md), and
// a check that nothing stands behind would look like one that passed.
func (e *evaluation) contract() {}
