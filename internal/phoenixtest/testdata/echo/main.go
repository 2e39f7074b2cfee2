// SPDX-License-Identifier: Apache-2.0

// Echo is a tool's program: it answers the trace context it was given, or fails if it
// is told to.
package main

import (
	"encoding/json"
	"io"
	"os"
)

func main() {
	var request struct{ Text string }
	text, err := io.ReadAll(os.Stdin)
	if err != nil || json.Unmarshal(text, &request) != nil || request.Text == "fail" {
		os.Exit(1)
	}
	// What cannot be written is seen by who reads it.
	_ = json.NewEncoder(os.Stdout).Encode(map[string]string{"text": os.Getenv("TRACEPARENT")})
}
