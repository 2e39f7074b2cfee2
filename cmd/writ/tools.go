// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/tools"
	"github.com/writ-dev/writ/tools/mcp"
)

func newTools() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tools",
		Short: "Show the tools of a bundle",
	}
	dir := cmd.PersistentFlags().StringP("bundle", "b", ".", "directory of the bundle")
	cmd.AddCommand(newToolsList(dir), newToolsShow(dir), newToolsSchema(dir), newToolsPin())
	return cmd
}

// toolView is a tool as it is printed.
type toolView struct {
	Name           string          `json:"name"`
	Description    string          `json:"description"`
	Risk           string          `json:"risk"`
	Effect         string          `json:"effect"`
	HTTP           string          `json:"http,omitempty"`
	Options        json.RawMessage `json:"options"`
	SchemaDigest   string          `json:"schema_digest"`
	RequestSchema  json.RawMessage `json:"request_schema"`
	ResponseSchema json.RawMessage `json:"response_schema"`
}

func viewOf(tool *tools.Tool) toolView {
	// A message that was read from a bundle has a JSON form.
	options, _ := protojson.MarshalOptions{UseProtoNames: true}.Marshal(tool.Options)
	return toolView{
		HTTP:           routeOf(tool),
		Options:        options,
		Name:           tool.Name,
		Description:    tool.Description,
		Risk:           strings.TrimPrefix(tool.Options.GetRisk().String(), "RISK_"),
		Effect:         strings.TrimPrefix(tool.Options.GetEffect().String(), "TOOL_EFFECT_"),
		SchemaDigest:   fmt.Sprintf("sha256:%x", tool.SchemaDigest),
		RequestSchema:  tool.Request.JSONSchema(),
		ResponseSchema: tool.Response.JSONSchema(),
	}
}

func printJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func newToolsList(dir *string) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the tools", Args: cobra.NoArgs}
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		loaded, err := load(cmd.Context(), cmd, *dir)
		if err != nil {
			return err
		}
		views := []toolView{}
		for _, tool := range loaded.Bundle.Tools() {
			views = append(views, viewOf(tool))
		}
		if *form == outputJSON {
			return printJSON(cmd.OutOrStdout(), views)
		}
		table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "NAME\tRISK\tEFFECT\tDESCRIPTION")
		for _, view := range views {
			first, _, _ := strings.Cut(view.Description, "\n")
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", view.Name, view.Risk, view.Effect, first)
		}
		return table.Flush()
	}
	return cmd
}

func find(cmd *cobra.Command, dir, name string) (*tools.Tool, error) {
	loaded, err := load(cmd.Context(), cmd, dir)
	if err != nil {
		return nil, err
	}
	tool := loaded.Bundle.Tool(name)
	if tool == nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "writ: error: the bundle has no tool %q\nwrit: hint: \"writ tools list\" names them\n", name)
		return nil, errNo
	}
	return tool, nil
}

func newToolsShow(dir *string) *cobra.Command {
	cmd := &cobra.Command{Use: "show TOOL", Short: "Show a tool", Args: cobra.ExactArgs(1)}
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		tool, err := find(cmd, *dir, args[0])
		if err != nil {
			return err
		}
		if *form == outputJSON {
			return printJSON(cmd.OutOrStdout(), viewOf(tool))
		}
		return showTool(cmd.OutOrStdout(), tool)
	}
	return cmd
}

func newToolsSchema(dir *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "schema TOOL",
		Short: "Print the JSON Schema (2020-12) of a tool's arguments",
		Args:  cobra.ExactArgs(1),
	}
	response := cmd.Flags().Bool("response", false, "print the schema of the result")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		tool, err := find(cmd, *dir, args[0])
		if err != nil {
			return err
		}
		schema := tool.Request
		if *response {
			schema = tool.Response
		}
		return printJSON(cmd.OutOrStdout(), json.RawMessage(schema.JSONSchema()))
	}
	return cmd
}

func newToolsPin() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pin URL",
		Short: "Print the digests of the tools that an MCP server lists",
		Long: `Pin asks an MCP server over streamable HTTP which tools it lists, and prints the
digest of each definition (name, description, schemas): what a reviewed tool's
definition_digest must be.`,
		Args: cobra.ExactArgs(1),
	}
	form := addOutput(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := mcp.AtURL(args[0])
		if err != nil {
			return err
		}
		pins, err := client.Pins(cmd.Context(), bundles.DefinitionDigest)
		if err != nil {
			return err
		}
		if *form == outputJSON {
			return printJSON(cmd.OutOrStdout(), pins)
		}
		for _, pin := range pins {
			fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", pin.Digest, pin.Name)
		}
		return nil
	}
	return cmd
}
