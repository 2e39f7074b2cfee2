// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/agent/policy"
	"github.com/writ-dev/writ/collector/query"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

func newReviewsGolden(desk *reviewDesk) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "golden",
		Short: "Make tests for the bundle of the calls that reviewers labelled",
		Long: `Golden writes a file for the bundle's folder tests: a case for each call with a label, with
the facts of its decision, that wants the verdict which the reviewers say is right. "writ
test" decides the cases under the bundle as it is then. Calls about which reviewers do not
agree, and calls with sensitive arguments, which are not recorded, are left out, and told.`,
		Example: "  writ reviews golden --ledger /var/lib/writ/ledger --file bundle/tests/reviewed.yaml",
		Args:    cobra.NoArgs,
	}
	path := cmd.Flags().StringP("file", "f", "", "file to write, which is replaced (default: standard output)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := desk.reviews(cmd)
		if err != nil {
			return err
		}
		suite := &writv1.TestSuite{Description: "Calls that reviewers labelled."}
		for _, r := range all {
			test, why := caseOf(r)
			if why != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "writ: note: %s is left out: %s\n", r.ID, why)
			}
			if test != nil {
				suite.Tests = append(suite.Tests, test)
			}
		}
		if len(suite.GetTests()) == 0 {
			return hinted(errors.New("no call has a label that a test can be made of"), "\"writ reviews list --all\" lists the labels")
		}
		text, err := suiteYAML(suite)
		if err != nil {
			return err
		}
		if *path == "" {
			_, err = cmd.OutOrStdout().Write(text)
			return err
		}
		if err := os.WriteFile(*path, text, 0o644); err != nil { //nolint:gosec // a bundle's files are read by others
			return fmt.Errorf("write the tests: %w", err)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d tests written to %s\n", len(suite.GetTests()), *path)
		return err
	}
	return cmd
}

// caseOf returns the test that a label makes of a call, or why there is none. A call
// without labels has neither.
func caseOf(r *query.Review) (*writv1.TestCase, string) {
	switch {
	case len(r.Labels) == 0:
		return nil, ""
	case r.Verdict() == writv1.Verdict_VERDICT_UNSPECIFIED:
		return nil, "its reviewers do not agree"
	case len(r.Record.GetCommitments()) > 0:
		return nil, fmt.Sprintf("%s is sensitive and not recorded", r.Record.GetCommitments()[0].GetPath())
	case len(r.Body.GetArguments()) == 0:
		return nil, "its arguments were not recorded"
	}
	last := r.Labels[len(r.Labels)-1]
	envelope := proto.CloneOf(r.Body.GetEnvelope())
	envelope.ToolCall.Args = &writv1.Json{Text: r.Body.GetArguments()}
	return &writv1.TestCase{
		Name: fmt.Sprintf("%s, which was %s, should be %s, says %s: %s", r.Body.GetTool(), policy.VerdictName(r.Body.GetDecision().GetVerdict()),
			policy.VerdictName(r.Verdict()), clipRunes(last.GetReviewer(), 64), r.ID),
		Principal: r.Body.GetPrincipal(), Envelope: envelope, Facts: r.Body.GetFacts(), Want: &writv1.Expectation{Verdict: r.Verdict()},
	}, ""
}

func clipRunes(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most])
	}
	return text
}

// suiteYAML writes a suite as the bundle's files are written, and reads it back.
func suiteYAML(suite *writv1.TestSuite) ([]byte, error) {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(suite)
	if err != nil {
		return nil, fmt.Errorf("write the tests: %w", err)
	}
	var file yaml.Node
	if err := yaml.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("write the tests: %w", err)
	}
	unbraced(&file)
	for i, test := range valueOf(file.Content[0], "tests").Content {
		args := valueOf(valueOf(valueOf(test, "envelope"), "tool_call"), "args")
		*args = yaml.Node{Kind: yaml.ScalarNode, Tag: "!json", Style: yaml.SingleQuotedStyle | yaml.TaggedStyle, Value: string(suite.GetTests()[i].GetEnvelope().GetToolCall().GetArgs().GetText())}
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := errors.Join(encoder.Encode(&file), encoder.Close()); err != nil {
		return nil, fmt.Errorf("write the tests: %w", err)
	}
	if err := bundles.ReadYAML("tests", out.Bytes(), &writv1.TestSuite{}); err != nil {
		return nil, fmt.Errorf("a test cannot be written as YAML: %w", err)
	}
	return out.Bytes(), nil
}

// unbraced takes the style of JSON from what is not a scalar.
func unbraced(node *yaml.Node) {
	if node.Kind != yaml.ScalarNode {
		node.Style = 0
	}
	for _, inner := range node.Content {
		unbraced(inner)
	}
}

// valueOf returns the value of a mapping's key.
func valueOf(node *yaml.Node, key string) *yaml.Node {
	for i := 0; node != nil && i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i+1]
		}
	}
	return nil
}
