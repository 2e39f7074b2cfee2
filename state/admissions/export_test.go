// SPDX-License-Identifier: Apache-2.0

package admissions

// SetMaxKeys makes a machine small enough to be filled.
func (m *Machine) SetMaxKeys(n int) { m.maxKeys = n }
