// SPDX-License-Identifier: Apache-2.0

package sessions

// SetMostOfTenant bounds the values of a tenant's sessions.
func (m *Machine) SetMostOfTenant(most int) { m.mostOfTenant = most }
