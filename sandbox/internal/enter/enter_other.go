// SPDX-License-Identifier: Apache-2.0

//go:build !linux || (!amd64 && !arm64)

package enter

// Main ends at once: there are no walls to put up on this system.
func Main() {}
