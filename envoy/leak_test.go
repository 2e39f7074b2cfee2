// SPDX-License-Identifier: Apache-2.0

package envoy_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-dev/writ/internal/envoytest"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

const secretNote = "tulips-are-blue-4711"

// No answer that writ gives through Envoy tells a sensitive argument, and no file of the
// agent's has it.
func TestNoAnswerThroughEnvoyTellsASensitiveArgument(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, stack *envoytest.Stack, _ writv1.Enforcement) {
		for name, body := range map[string]string{
			"a check fails":           `{"payment":"p-1","amount":20000,"note":%q}`,
			"a human must approve":    `{"payment":"p-1","amount":6000,"note":%q}`,
			"a rule is broken beside": `{"payment":"nothing","amount":100,"note":%q}`,
			"it is of another type":   `{"payment":"p-1","amount":100,"note":{"text":%q}}`,
			"in an unknown field":     `{"payment":"p-1","amount":100,"remark":%q}`,
			"as the amount":           `{"payment":"p-1","amount":%q}`,
			"it is cut short":         `{"payment":"p-1","amount":100,"note":%q`,
			"it is let through":       `{"payment":"p-1","amount":100,"note":%q}`,
		} {
			answer := stack.Do(stack.Request("payments", http.MethodPost, "/v1/tenants/acme/refunds", fmt.Sprintf(body, secretNote)))
			told := answer.Body + fmt.Sprint(answer.Header)
			for form, secret := range map[string]string{
				"as it is": secretNote, "in hexadecimal": hex.EncodeToString([]byte(secretNote)),
				"in base64": base64.StdEncoding.EncodeToString([]byte(secretNote))[:24],
			} {
				if strings.Contains(told, secret) {
					t.Errorf("%s: status %d tells it %s: %s", name, answer.Status, form, told)
				}
			}
		}
		stack.Decisions(8)
		err := filepath.WalkDir(stack.Config.GetDataDir(), func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			if strings.Contains(string(content), secretNote) {
				t.Errorf("%s has it", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
