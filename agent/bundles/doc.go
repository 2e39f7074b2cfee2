// SPDX-License-Identifier: Apache-2.0

// Package bundles makes a bundle out of a directory: it reads the files, holds
// each against its protobuf message, compiles tools and conditions, and runs the
// bundle's own tests.
//
// It promises to tell every problem, each with file, line and column, and to
// load nothing while there is one. What it reads it reads once, within bounds:
// regular files inside the directory, whose digest is the bundle's version.
// Nothing in the folders of a bundle is passed over in silence.
//
// It does not decide: that is agent/policy's. It verifies no signatures and
// fetches nothing yet (docs/status.md).
//
//	bundle, err := bundles.LoadDir(ctx, "examples/refunddesk/bundle", bundles.Options{})
//	var problems bundles.Errors
//	if errors.As(err, &problems) {
//		for _, problem := range problems {
//			fmt.Fprintln(os.Stderr, problem)
//		}
//	}
package bundles
