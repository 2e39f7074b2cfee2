// SPDX-License-Identifier: Apache-2.0

package bundles

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// JUnitSuite is a suite of a report in JUnit's XML.
type JUnitSuite struct {
	// Name is the suite's.
	Name string
	// Cases are what it is made of.
	Cases []JUnitCase
}

// JUnitCase is one case of a suite.
type JUnitCase struct {
	// Name says what the case shows, Class what it is of.
	Name, Class string
	// File and Line are where it stands; empty is nowhere.
	File string
	Line int
	// Duration is how long it took.
	Duration time.Duration
	// Failure is why it failed, in a line, and Text that at length. Skipped is why it was
	// not run. Where all are empty it passed.
	Failure, Text, Skipped string
}

// The elements of JUnit's report, as far as CI systems read them.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Skipped  int          `xml:"skipped,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		File    string        `xml:"file,attr,omitempty"`
		Line    int           `xml:"line,attr,omitempty"`
		Time    string        `xml:"time,attr"`
		Failure *junitMessage `xml:"failure"`
		Skipped *junitMessage `xml:"skipped"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit writes suites in JUnit's XML.
func WriteJUnit(w io.Writer, suites []JUnitSuite) error {
	var report junitSuites
	for i := range suites {
		suite := suites[i].element()
		report.Tests += suite.Tests
		report.Failures += suite.Failures
		report.Skipped += suite.Skipped
		report.Suites = append(report.Suites, suite)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(report); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (s *JUnitSuite) element() junitSuite {
	out := junitSuite{Name: s.Name, Tests: len(s.Cases)}
	var took time.Duration
	for i := range s.Cases {
		c := &s.Cases[i]
		one := junitCase{Name: c.Name, Class: c.Class, File: c.File, Line: c.Line, Time: seconds(c.Duration)}
		switch {
		case c.Failure != "":
			out.Failures++
			one.Failure = &junitMessage{Message: c.Failure, Text: c.Text}
		case c.Skipped != "":
			out.Skipped++
			one.Skipped = &junitMessage{Message: c.Skipped}
		}
		took += c.Duration
		out.Cases = append(out.Cases, one)
	}
	out.Time = seconds(took)
	return out
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.6f", d.Seconds()) }

// WriteJUnit writes the report in JUnit's XML, a suite for each file.
func (r *Report) WriteJUnit(w io.Writer) error {
	var suites []JUnitSuite
	for i := range r.Cases {
		c := &r.Cases[i]
		if len(suites) == 0 || suites[len(suites)-1].Name != c.File {
			suites = append(suites, JUnitSuite{Name: c.File})
		}
		one := JUnitCase{Name: c.Name, Class: c.File, File: c.File, Line: c.Line, Duration: c.Duration}
		if len(c.Differences) > 0 {
			explanation, err := explain(c.Result)
			if err != nil {
				return err
			}
			one.Failure = strings.Join(c.Differences, "; ")
			one.Text = strings.Join(c.Differences, "\n") + "\n\n" + explanation
		}
		suites[len(suites)-1].Cases = append(suites[len(suites)-1].Cases, one)
	}
	return WriteJUnit(w, suites)
}
