// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/envoy/resources"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
	"github.com/writ-dev/writ/sandbox"
)

func newSandbox() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Tell what isolation this machine gives to tools",
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "check",
		Short: "Print the sandbox tier, what is missing, and how each limit is enforced",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report := sandbox.Probe()
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), report.String()); err != nil {
				return err
			}
			if report.Tier < sandbox.T1 {
				return errNo
			}
			return nil
		},
	})
	return cmd
}

func newEnvoy() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "envoy",
		Short: "Make Envoy's configuration",
	}
	bootstrap := &cobra.Command{
		Use:   "bootstrap --config FILE",
		Short: "Print a static Envoy configuration for the agent and its bundle's catalogue",
		Args:  cobra.NoArgs,
	}
	path := bootstrap.Flags().StringP("config", "c", "", "the agent's configuration file")
	_ = bootstrap.MarkFlagRequired("config")
	bootstrap.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := readAgentConfig(*path)
		if err != nil {
			return err
		}
		loaded, err := load(cmd.Context(), cmd, config.GetBundleDir())
		if err != nil {
			return err
		}
		text, err := bootstrapOf(config, loaded)
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	cmd.AddCommand(bootstrap)
	return cmd
}

func bootstrapOf(config *writv1.AgentConfig, loaded *bundles.Loaded) ([]byte, error) {
	if config.GetEnvoy() == nil {
		return nil, errors.New("the agent's configuration says nothing of its Envoy: set envoy.listener and envoy.agent_listener")
	}
	input := resources.Input{Config: config, Catalogue: loaded.Bundle.Catalogue()}
	if jwt := config.GetIdentity().GetJwt(); jwt != nil {
		keys, err := os.ReadFile(jwt.GetJwksFile())
		if err != nil {
			return nil, fmt.Errorf("read the keys of identity.jwt: %w", err)
		}
		input.JWKS = keys
	}
	message, err := resources.Bootstrap(input)
	if err != nil {
		return nil, err
	}
	return resources.YAML(message)
}
