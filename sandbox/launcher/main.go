// SPDX-License-Identifier: Apache-2.0

// Command launcher is the small program that stands between the agent and a tool: it puts the sandbox
// around itself and becomes the tool. It is built beside writ as writ-sandbox and is of no use by hand.
//
// It exists for its size. The agent can re-execute itself to the same end, and does where this program is
// not found, but then each run of a tool pays for the start of the whole agent.
package main

import "github.com/writ-dev/writ/sandbox/internal/enter"

func main() { enter.Main() }
