// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"runtime"
)

// Panicked returns what may be logged of a recovered panic: what the runtime says,
// and of any other only its type, because its text may hold what the call held.
func Panicked(cause any) error {
	err, ok := cause.(error)
	if fault := runtime.Error(nil); ok && errors.As(err, &fault) {
		return fmt.Errorf("panic: %w", fault)
	}
	return fmt.Errorf("panic with a %T", cause)
}
