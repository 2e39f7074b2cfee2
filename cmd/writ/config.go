// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
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

// readAgentConfig reads an agent's configuration. File names in it are relative to it.
func readAgentConfig(path string) (*writv1.AgentConfig, error) {
	config := &writv1.AgentConfig{}
	if err := readConfig(path, config); err != nil {
		return nil, err
	}
	files := []*string{&config.DataDir, &config.BundleDir, &config.OriginalsKeysFile}
	if collector := config.GetCollector(); collector != nil {
		files = append(files, &collector.PublicKeyFile)
		files = append(files, clientFiles(collector.GetTls())...)
	}
	if jwt := config.GetIdentity().GetJwt(); jwt != nil {
		files = append(files, &jwt.JwksFile)
	}
	if otlp := config.GetTelemetry().GetOtlp(); otlp != nil {
		files = append(files, &otlp.HeadersFile)
		files = append(files, clientFiles(otlp.GetTls())...)
	}
	files = append(files, serverFiles(config.GetListeners().GetPlannerTls())...)
	files = append(files, serverFiles(config.GetEnvoy().GetTls())...)
	resolve(path, files)
	return config, nil
}

// readCollectorConfig reads a collector's configuration. File names in it are relative
// to it.
func readCollectorConfig(path string) (*writv1.CollectorConfig, error) {
	config := &writv1.CollectorConfig{}
	if err := readConfig(path, config); err != nil {
		return nil, err
	}
	files := append(serverFiles(config.GetTls()), &config.DataDir, &config.AgentsFile)
	if hook := config.GetFindingWebhook(); hook != nil {
		files = append(files, &hook.SecretFile)
	}
	if config.GetHeadLog() != nil {
		files = append(files, &config.HeadLog.WitnessPolicyFile)
	}
	resolve(path, files)
	return config, nil
}

func serverFiles(tls *writv1.ServerTls) []*string {
	if tls == nil {
		return nil
	}
	return []*string{&tls.CertificateFile, &tls.KeyFile, &tls.ClientCaFile}
}

func clientFiles(tls *writv1.ClientTls) []*string {
	if tls == nil {
		return nil
	}
	return []*string{&tls.CertificateFile, &tls.KeyFile, &tls.ServerCaFile}
}

// resolve makes relative names relative to the directory of the configuration file.
func resolve(path string, names []*string) {
	base := filepath.Dir(path)
	for _, name := range names {
		if *name != "" && !filepath.IsAbs(*name) {
			*name = filepath.Join(base, *name)
		}
	}
}

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check configuration files",
	}
	check := &cobra.Command{
		Use:   "check FILE",
		Short: "Check an agent's or a collector's configuration file",
		Long: `Check reads a configuration file as "writ agent" or "writ collector" would, and
prints it as it is understood. It opens nothing.`,
		Args: cobra.ExactArgs(1),
	}
	kind := check.Flags().String("kind", "agent", "whose file it is: agent or collector")
	_ = check.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"agent", "collector"}, cobra.ShellCompDirectiveNoFileComp))
	check.RunE = func(cmd *cobra.Command, args []string) error {
		config, err := readKind(*kind, args[0])
		if errors.Is(err, errKind) {
			return err
		}
		if err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "writ: error: %v\n", err)
			return errNo
		}
		text, err := protoyaml.MarshalOptions{UseProtoNames: true}.Marshal(config)
		if err != nil {
			return fmt.Errorf("print the configuration: %w", err)
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	cmd.AddCommand(check)
	return cmd
}

var errKind = errors.New("--kind is agent or collector")

func readKind(kind, path string) (proto.Message, error) {
	switch kind {
	case "agent":
		return readAgentConfig(path)
	case "collector":
		return readCollectorConfig(path)
	default:
		return nil, fmt.Errorf("%w, not %q", errKind, kind)
	}
}
