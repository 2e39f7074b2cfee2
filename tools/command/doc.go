// SPDX-License-Identifier: Apache-2.0

// Package command runs tools that are native programs.
//
// A program is one that the bundle names, and never a shell. It gets the
// canonical JSON of the typed request on standard input and answers with the JSON
// of the response on standard output; each line on standard error is progress. It
// runs in a sandbox of its own, in an empty directory, with two variables in its
// environment, and with no way to reach the network.
//
//	executor := command.New(runner, bundleDir)
//	if err := executor.Check(tool); err != nil { ... }  // at load
//	result, err := executor.Execute(ctx, execution)
//
// Arguments are fixed but for "{field}", which as a whole argument stands for the
// scalar request field of that name. A "--" stands before the first of them, so
// that a program which follows the convention takes no value for an option; a
// program that does not follow it should be given its values on standard input.
// Sensitive fields are refused as arguments, for other processes may read those.
//
// The package promises that what was hashed is what runs, as far as the file
// system can promise it. The program's path is resolved to a regular file that
// not everybody may change; where a digest is pinned the file is hashed, and after
// the run it must be the same file with the same times still. A change in between
// by whoever may write to the file is found, and refuses the result; what the
// changed program did meanwhile in its sandbox is done. Programs that only the
// administrator can write to leave nobody who could.
//
// It does not validate the answer against its schema; the agent does.
package command
