// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"buf.build/go/protovalidate"
	"github.com/go-json-experiment/json/jsontext"

	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// readLines reads scenarios from a file with a JSON object on each line: one with a name
// begins a scenario, every other is its next step.
func (l *loader) readLines(name string) {
	r := &lineReader{name: name, play: Play{File: name}}
	n := 0
	for line := range bytes.Lines(l.files[name]) {
		if n++; len(bytes.TrimSpace(line)) > 0 {
			r.line(n, line)
		}
	}
	r.end()
	if len(r.play.Scenarios) == 0 && len(r.problems) == 0 {
		r.problem(0, "the file has no scenario")
	}
	l.problems = append(l.problems, r.problems...)
	if len(r.problems) == 0 {
		l.plays = append(l.plays, r.play)
	}
}

// lineReader makes scenarios of lines.
type lineReader struct {
	name     string
	play     Play
	problems []Problem
}

func (r *lineReader) problem(line int, format string, args ...any) {
	p := Problem{File: r.name, Line: line, Message: fmt.Sprintf(format, args...)}
	if line > 0 {
		p.Column = 1
	}
	r.problems = append(r.problems, p)
}

// line takes one line.
func (r *lineReader) line(n int, text []byte) {
	value, err := jsontext.AppendFormat(nil, text)
	if err != nil || jsontext.Value(value).Kind() != '{' {
		r.problem(n, "the line is not one JSON object, each of whose names stands once")
		return
	}
	value = []byte(rareBreaks.Replace(string(value)))
	if begins(value) {
		r.end()
		scenario := &writv1.Scenario{}
		r.read(n, decodeYAML(r.name, value, scenario))
		if len(scenario.GetSteps()) > 0 {
			r.problem(n, "the steps of a scenario stand on lines of their own")
		}
		r.play.Scenarios, r.play.Lines = append(r.play.Scenarios, scenario), append(r.play.Lines, n)
		return
	}
	step := &writv1.ScenarioStep{}
	r.read(n, readYAML(r.name, value, step))
	last := len(r.play.Scenarios) - 1
	if last < 0 {
		r.problem(n, "there is no scenario yet; a line with its name begins one")
		return
	}
	r.play.Scenarios[last].Steps = append(r.play.Scenarios[last].Steps, step)
}

// rareBreaks escapes what YAML, as which the line is read, takes for the end of a line
// and JSON does not.
var rareBreaks = strings.NewReplacer("\u0085", `\u0085`, "\u2028", `\u2028`, "\u2029", `\u2029`, "\ufeff", `\ufeff`)

// begins says whether an object has a name.
func begins(object []byte) bool {
	var fields map[string]json.RawMessage
	err := json.Unmarshal(object, &fields)
	_, named := fields["name"]
	return err == nil && named
}

// read takes over the problems of a line.
func (r *lineReader) read(n int, d *document) {
	for _, p := range d.problems {
		p.Line, p.Column = n, max(p.Column, 1)
		r.problems = append(r.problems, p)
	}
}

// end holds the last scenario against its rules, now that it has its steps.
func (r *lineReader) end() {
	last := len(r.play.Scenarios) - 1
	if last < 0 || len(r.problems) > 0 {
		return
	}
	err := protovalidate.Validate(r.play.Scenarios[last])
	var broken *protovalidate.ValidationError
	if errors.As(err, &broken) {
		for _, violation := range broken.Violations {
			r.problem(r.play.Lines[last], "%s: %s", protovalidate.FieldPathString(violation.Proto.GetField()), violation.Proto.GetMessage())
		}
	} else if err != nil {
		r.problem(r.play.Lines[last], "%v", err)
	}
}
