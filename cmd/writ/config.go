// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"buf.build/go/protoyaml"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/writ-dev/writ/agent/bundles"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// maxConfig bounds a configuration file.
const maxConfig = 1 << 20

// readConfig reads a YAML file into a message, strictly, with the file, line and
// column of what is wrong.
func readConfig(path string, into proto.Message) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxConfig+1))
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	if len(data) > maxConfig {
		return fmt.Errorf("read the configuration: %s has more than %d bytes", path, maxConfig)
	}
	if err := bundles.ReadYAML(path, data, into); err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	return nil
}

func readAgentConfig(path string) (*writv1.AgentConfig, error) {
	config := &writv1.AgentConfig{}
	if err := readConfig(path, config); err != nil {
		return nil, err
	}
	base := filepath.Dir(path)
	for _, dir := range []*string{&config.DataDir, &config.BundleDir} {
		if !filepath.IsAbs(*dir) {
			*dir = filepath.Join(base, *dir)
		}
	}
	return config, nil
}

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check configuration files",
	}
	check := &cobra.Command{
		Use:   "check FILE",
		Short: "Check an agent's configuration file",
		Long: `Check reads a configuration file as "writ agent" would, and prints it as it is
understood. It opens nothing.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config := &writv1.AgentConfig{}
			if err := readConfig(args[0], config); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "writ: error: %v\n", err)
				return errNo
			}
			text, err := protoyaml.MarshalOptions{UseProtoNames: true}.Marshal(config)
			if err != nil {
				return fmt.Errorf("print the configuration: %w", err)
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	cmd.AddCommand(check)
	return cmd
}
