// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-dev/writ/agent/bundles"
	"github.com/writ-dev/writ/tools"
)

// toolbox is an executor that has the programs it was given.
type toolbox struct {
	craft
	programs map[string]bool
}

// Check says whether the toolbox has the program of a tool.
func (b toolbox) Check(tool *tools.Tool) error {
	if !b.programs[tool.Options.GetCommand().GetPath()] {
		return fmt.Errorf("tool %s: %w", tool.Name, errMissing)
	}
	return nil
}

var errMissing = errors.New("there is no such program")

func TestABundleWhoseProgramIsMissingDoesNotComeIntoForce(t *testing.T) {
	t.Parallel()
	w := openWorkshop(t, workshopOptions{executor: toolbox{craft: made, programs: map[string]bool{"/bin/true": true}}})
	for _, c := range []struct {
		path string
		want error
	}{{"/bin/missing", errMissing}, {"/bin/true", nil}, {"/bin/missing", errMissing}} {
		path, want, before := c.path, c.want, w.agent.Bundle()
		w.rewrite("protos/workshop.proto", "/bin/true", path)
		bundle, err := bundles.LoadDir(t.Context(), filepath.Join(w.dir, "bundle"), bundles.Options{})
		if err != nil {
			t.Fatal(err)
		}
		size := w.ledger.Status().Size
		err = w.agent.Swap(context.WithoutCancel(t.Context()), bundle)
		if !errors.Is(err, want) || err != nil && !strings.Contains(err.Error(), "workshop.make") {
			t.Errorf("%s: Swap = %v, want %v", path, err, want)
		}
		if want != nil && (w.agent.Bundle() != before || w.ledger.Status().Size != size) {
			t.Errorf("%s: the bundle came into force", path)
		}
		if want == nil && w.agent.Bundle() != bundle {
			t.Errorf("%s: the bundle did not come into force", path)
		}
	}
}

// rewrite changes a file of the bundle from how it was at first.
func (w *workshop) rewrite(name, old, changed string) {
	w.t.Helper()
	w.add(name, strings.ReplaceAll(workshopFiles[name], old, changed))
}

// add writes a file of the bundle.
func (w *workshop) add(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.dir, "bundle", filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}
