// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/writ-dev/writ/agent"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/state/approvals"
)

// approversOf returns the approvers of a configuration.
func approversOf(config *writv1.AgentConfig) ([]agent.Approver, error) {
	var found []agent.Approver
	for i, approver := range config.GetApprovers() {
		user, key, err := approvals.ParsePublicKey(approver.GetPublicKey())
		if err != nil {
			return nil, hinted(fmt.Errorf("approvers[%d].public_key: %w", i, err), "\"writ approvals key\" makes a key and prints it")
		}
		var seal []byte
		if approver.GetSealKey() != "" {
			if seal, err = approvals.ParseSealKey(approver.GetSealKey()); err != nil {
				return nil, hinted(fmt.Errorf("approvers[%d].seal_key: %w", i, err), "\"writ approvals key\" prints it with the key that it makes")
			}
		}
		found = append(found, agent.Approver{User: user, Tenant: approver.GetTenant(), AllTenants: approver.GetAllTenants(), Roles: approver.GetRoles(), PublicKey: key, SealKey: seal})
	}
	return found, nil
}
