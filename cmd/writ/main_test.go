// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/writ-dev/writ/sandbox"
)

func TestMain(m *testing.M) {
	sandbox.MaybeLaunch()
	testscript.Main(m, map[string]func(){
		"writ": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
			code := run(ctx, os.Args[1:])
			stop()
			os.Exit(code)
		},
		"makeledger":    makeLedger,
		"interrupt":     interrupt,
		"withcollector": withCollector,
	})
}

func TestTheCommandLineIsAsItsScriptsSay(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatalf("find the examples: %v", err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("EXAMPLES", examples)
			return nil
		},
	})
}
