// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// Whatever becomes of a call, and whoever reads of it, a sensitive argument stands nowhere:
// not in its answer, not in what explains or shows it, not in a file of the agent's.
func TestNoReaderIsToldASensitiveArgument(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	for name, c := range map[string]struct {
		args string
		want writv1.Verdict
	}{
		"allowed":               {`{"payee":"Nordwerk","cents":420,"iban":"` + secretIBAN + `"}`, writv1.Verdict_VERDICT_ALLOW},
		"waiting":               {`{"payee":"Nordwerk","cents":420000,"iban":"` + secretIBAN + `"}`, writv1.Verdict_VERDICT_NEEDS_APPROVAL},
		"against its rules":     {`{"payee":"Nordwerk","cents":420,"iban":"` + strings.Repeat(secretIBAN, 3) + `"}`, writv1.Verdict_VERDICT_DENY},
		"of another type":       {`{"payee":"Nordwerk","cents":420,"iban":["` + secretIBAN + `"]}`, writv1.Verdict_VERDICT_DENY},
		"in an unknown field":   {`{"payee":"Nordwerk","cents":420,"account":"` + secretIBAN + `"}`, writv1.Verdict_VERDICT_DENY},
		"under a repeated name": {`{"payee":"Nordwerk","cents":420,"iban":"x","iban":"` + secretIBAN + `"}`, writv1.Verdict_VERDICT_DENY},
		"cut short":             {`{"payee":"Nordwerk","cents":420,"iban":"` + secretIBAN, writv1.Verdict_VERDICT_DENY},
		"as the name":           {`{"payee":"Nordwerk","cents":420,"` + secretIBAN + `":1}`, writv1.Verdict_VERDICT_DENY},
	} {
		answer := o.pay(c.args)
		if got := answer.GetDecision().GetVerdict(); got != c.want {
			t.Errorf("%s: the verdict is %s: %v", name, got, answer.GetDecision())
		}
		// What a planner is let do it is given back: the arguments as they were typed.
		told := proto.CloneOf(answer)
		told.Args = nil
		text, err := protojson.Marshal(told)
		if err != nil {
			t.Fatal(err)
		}
		tellsNothing(t, name+": the answer", string(text))
		ledger := filepath.Join(o.dir, "data", "ledger")
		for _, form := range []string{"text", "json"} {
			for _, reader := range []string{"planner", "operator", "auditor"} {
				args := []string{"explain", "--ledger", ledger, "--for", reader, "-o", form, answer.GetDecisionId()}
				if reader == "auditor" {
					args = append(args, "--bundle", filepath.Join(o.dir, "bundle"))
				}
				tellsNothing(t, name+": explained to a "+reader, standardOutput(t, args...))
			}
			tellsNothing(t, name+": shown", standardOutput(t, "records", "show", "--ledger", ledger, "-o", form, answer.GetDecisionId()))
		}
		tellsNothing(t, name+": listed", standardOutput(t, "records", "list", "--ledger", ledger, "-o", "json"))
	}
	tellsNothing(t, "the agent's log", o.log())
	err := filepath.WalkDir(filepath.Join(o.dir, "data"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		tellsNothing(t, path, string(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tellsNothing looks for the secret in a text, in the forms in which one could be told.
func tellsNothing(t *testing.T, where, text string) {
	t.Helper()
	for form, secret := range map[string]string{
		"as it is": secretIBAN, "in hexadecimal": hex.EncodeToString([]byte(secretIBAN)),
		"in base64": base64.StdEncoding.EncodeToString([]byte(secretIBAN))[:24],
	} {
		if strings.Contains(text, secret) {
			t.Errorf("%s has it %s:\n%.2000s", where, form, text)
		}
	}
}
