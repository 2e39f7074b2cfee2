// SPDX-License-Identifier: Apache-2.0

// Package sandbox runs a program that nobody trusts and leaves nothing behind. It isolates a process; it
// knows no tool, no policy and no protocol.
package sandbox
