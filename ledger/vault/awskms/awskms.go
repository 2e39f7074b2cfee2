// SPDX-License-Identifier: Apache-2.0

// Package awskms has a vault's keys encrypted by a symmetric key of AWS KMS, which never
// leaves it.
//
// It promises that a day's key is bound, as KMS's encryption context, to its tenant, day
// and public key; CloudTrail logs these with every use. Region, credentials and endpoint
// are those of the AWS SDK: its environment variables, shared files and roles. The
// principal needs kms:DescribeKey, kms:Encrypt to make keys and kms:Decrypt to open
// originals; none of them to shred.
//
// It does not manage the KMS key. Whoever has that deleted has destroyed every key of the
// vault, copies and backups included, once KMS's waiting period is over.
//
//	kek, err := awskms.Open(ctx, "alias/writ-originals")
//	v, err := vault.Open(dir, kek)
package awskms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// patience bounds one request with its repetitions.
const patience = 15 * time.Second

// Kek is a key encryption key in AWS KMS.
type Kek struct {
	client *kms.Client
	arn    string
}

// Open finds a key by its id, ARN or alias ("alias/..."). What an alias leads to later
// makes no difference.
func Open(ctx context.Context, id string) (*Kek, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	loaded, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the configuration of AWS: %w", err)
	}
	client := kms.NewFromConfig(loaded)
	found, err := client.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String(id)})
	if err != nil {
		return nil, fmt.Errorf("find the key %s in AWS KMS: %w", id, err)
	}
	about := found.KeyMetadata
	if about == nil || about.KeySpec != types.KeySpecSymmetricDefault {
		return nil, fmt.Errorf("the key %s in AWS KMS is not one of SYMMETRIC_DEFAULT", id)
	}
	return &Kek{client: client, arn: aws.ToString(about.Arn)}, nil
}

// Name is "aws-kms:" and the key's ARN.
func (k *Kek) Name() string { return "aws-kms:" + k.arn }

// Wrap encrypts.
func (k *Kek) Wrap(ctx context.Context, plain []byte, about map[string]string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, err := k.client.Encrypt(ctx, &kms.EncryptInput{KeyId: aws.String(k.arn), Plaintext: plain, EncryptionContext: about})
	if err != nil {
		return nil, fmt.Errorf("encrypt with AWS KMS: %w", err)
	}
	return out.CiphertextBlob, nil
}

// Unwrap decrypts.
func (k *Kek) Unwrap(ctx context.Context, wrapped []byte, about map[string]string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, err := k.client.Decrypt(ctx, &kms.DecryptInput{KeyId: aws.String(k.arn), CiphertextBlob: wrapped, EncryptionContext: about})
	var other *types.InvalidCiphertextException
	if errors.As(err, &other) {
		return nil, fmt.Errorf("the file of the key was changed, or is another key's: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("decrypt with AWS KMS: %w", err)
	}
	return out.Plaintext, nil
}
