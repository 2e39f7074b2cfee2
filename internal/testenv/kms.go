// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// listening is where moto's server says that it listens.
var listening = regexp.MustCompile(`Running on (http://127\.0\.0\.1:\d+)`)

// KMS is an AWS KMS on loopback.
type KMS struct {
	// Client makes and changes keys.
	Client *kms.Client
	stop   func()
}

// Stop ends it.
func (k *KMS) Stop() { k.stop() }

// StartKMS starts an AWS KMS on loopback, moto's, to which the AWS SDK leads by the
// environment from then on. Without
// MOTO_SERVER in the environment the test is skipped: "make kms" sets it.
func StartKMS(t *testing.T) *KMS {
	t.Helper()
	program := os.Getenv("MOTO_SERVER")
	if program == "" {
		t.Skip("MOTO_SERVER names no server: \"make kms\" runs this")
	}
	cmd := exec.Command(program, "-H", "127.0.0.1", "-p", "0") //nolint:gosec // the test's own
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start moto's server: %v", err)
	}
	stop := sync.OnceFunc(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	endpoint, lines := "", bufio.NewScanner(out)
	for endpoint == "" && lines.Scan() {
		if found := listening.FindStringSubmatch(lines.Text()); found != nil {
			endpoint = found[1]
		}
	}
	if endpoint == "" {
		t.Fatal("moto's server does not say where it listens")
	}
	go func() {
		for lines.Scan() { //nolint:revive // what it logs is read, or it would wait
		}
	}()
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_KMS": endpoint, "AWS_REGION": "eu-central-1",
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
	loaded, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return &KMS{Client: kms.NewFromConfig(loaded), stop: stop}
}

// MakeKey makes a symmetric key with an alias, and returns its ARN.
func (k *KMS) MakeKey(t *testing.T, alias string) string {
	t.Helper()
	made, err := k.Client.CreateKey(t.Context(), &kms.CreateKeyInput{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Client.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String(alias), TargetKeyId: made.KeyMetadata.KeyId}); err != nil {
		t.Fatal(err)
	}
	return aws.ToString(made.KeyMetadata.Arn)
}
