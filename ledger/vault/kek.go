// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/writ-dev/writ/ledger"
	"github.com/writ-dev/writ/ledger/originals"
)

// Wrapper is a key encryption key.
type Wrapper interface {
	// Name says which it is, for the files of what it wraps.
	Name() string
	// Wrap encrypts a private key, bound to what is said about it.
	Wrap(ctx context.Context, plain []byte, about map[string]string) ([]byte, error)
	// Unwrap decrypts what Wrap made, with the same said about it.
	Unwrap(ctx context.Context, wrapped []byte, about map[string]string) ([]byte, error)
}

// aboutOf is what a wrapped key is bound to. Key services log it.
func aboutOf(key originals.PublicKey) map[string]string {
	return map[string]string{
		"writ:tenant": strconv.Quote(key.Tenant),
		"writ:day":    string(key.Day),
		"writ:key":    base64.StdEncoding.EncodeToString(key.Bytes[:]),
	}
}

const (
	kekBytes = 32
	maxKek   = 4096
)

// FileKek is a key encryption key in a file: 32 bytes in hexadecimal. It encrypts with
// AES-256-GCM.
type FileKek struct {
	name string
	aead cipher.AEAD
}

// MakeFileKek makes a key encryption key in a file that is not there, with mode 0600.
func MakeFileKek(path string) error {
	var key [kekBytes]byte
	_, _ = rand.Read(key[:])                                                 // never fails: crypto/rand ends the program instead
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // the caller's
	if err != nil {
		return fmt.Errorf("make the key encryption key: %w", err)
	}
	_, err = file.WriteString(hex.EncodeToString(key[:]) + "\n")
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write the key encryption key: %w", err)
	}
	return (ledger.OS{}).SyncDir(filepath.Dir(path))
}

// ReadFileKek reads a key encryption key. One that others may read is refused.
func ReadFileKek(path string) (*FileKek, error) {
	file, err := os.Open(path) //nolint:gosec // the caller's
	if err != nil {
		return nil, fmt.Errorf("read the key encryption key: %w", err)
	}
	defer file.Close() //nolint:errcheck // read only
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the key encryption key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: others may read the key encryption key %s; \"chmod 600\" it: %w", ErrKek, path, fs.ErrPermission)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxKek))
	if err != nil {
		return nil, fmt.Errorf("read the key encryption key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != kekBytes {
		return nil, fmt.Errorf("%w: %s is not %d bytes in hexadecimal", ErrKek, path, kekBytes)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("read the key encryption key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("read the key encryption key: %w", err)
	}
	sum := sha256.Sum256(append([]byte("writ/kek/v1\n"), key...))
	return &FileKek{name: "file:" + hex.EncodeToString(sum[:16]), aead: aead}, nil
}

// Name tells the key from others, and nothing of it.
func (k *FileKek) Name() string { return k.name }

// Wrap encrypts.
func (k *FileKek) Wrap(_ context.Context, plain []byte, about map[string]string) ([]byte, error) {
	return k.aead.Seal(nil, nil, plain, aboutText(about)), nil
}

// Unwrap decrypts.
func (k *FileKek) Unwrap(_ context.Context, wrapped []byte, about map[string]string) ([]byte, error) {
	plain, err := k.aead.Open(nil, nil, wrapped, aboutText(about))
	if err != nil {
		return nil, errors.New("the file of the key was changed, or is another key's")
	}
	return plain, nil
}

func aboutText(about map[string]string) []byte {
	text := []byte("writ/day-key/v1\n")
	for _, name := range slices.Sorted(maps.Keys(about)) {
		text = append(text, name+"="+about[name]+"\n"...)
	}
	return text
}
