// SPDX-License-Identifier: Apache-2.0

package atoms

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	// MostLeaves is how many scalars of a JSON text are read.
	MostLeaves = 10_000
	// MostDepth is how deep objects and lists may be nested.
	MostDepth = 64
)

// ErrDepth is returned for a JSON text that is nested deeper than MostDepth.
var ErrDepth = errors.New("the JSON text is nested too deeply")

// Leaf is one scalar of a JSON text.
type Leaf struct {
	// Path is its place, such as "items[0].email"; Field is the path without
	// indices.
	Path, Field string
	// Text is the text of a string, and the canonical text of anything else.
	Text         string
	Number, Bool bool
	// PerUnit is how many of what a number counts make a unit of money, a power of ten;
	// 0 where it is no money.
	PerUnit uint32
	// Audience says that it names somebody to whom the call sends what it carries.
	Audience bool
	// Object is the innermost object that it stands in: its place among the
	// objects, in the order in which they begin.
	Object int
}

// JSON returns the leaf in canonical JSON.
func (l *Leaf) JSON() string {
	if l.Number || l.Bool {
		return l.Text
	}
	return Quote(l.Text)
}

// Quote returns a text as a JSON string; "" when it is not valid UTF-8.
func Quote(text string) string {
	out, err := jsontext.AppendQuote(nil, text)
	if err != nil {
		return ""
	}
	return string(out)
}

// Unquote returns the text that a JSON string stands for.
func Unquote(text string) (string, error) {
	out, err := jsontext.AppendUnquote(nil, text)
	if err != nil {
		return "", fmt.Errorf("read a JSON string: %w", err)
	}
	return string(out), nil
}

// Object is one object of a JSON text.
type Object struct {
	// Parent is the object that it stands in, -1 for the first.
	Parent int
	// Field is the field of the parent that holds it.
	Field string
	// Listed says that it is an element of a list.
	Listed bool
}

// Leaves reads a JSON text into its scalars and objects. What is beyond the bounds
// is left out, and said so.
func Leaves(text []byte) (leaves []Leaf, objects []Object, truncated bool, err error) {
	w := walker{in: jsontext.NewDecoder(bytes.NewReader(text))}
	if err := w.value("", "", -1, false, 0); err != nil {
		return nil, nil, false, fmt.Errorf("read the JSON text: %w", err)
	}
	return w.leaves, w.objects, w.truncated, nil
}

type walker struct {
	in        *jsontext.Decoder
	leaves    []Leaf
	objects   []Object
	truncated bool
}

func (w *walker) value(path, field string, object int, listed bool, depth int) error {
	if depth > MostDepth {
		return ErrDepth
	}
	token, err := w.in.ReadToken()
	if err != nil {
		return err
	}
	switch kind := token.Kind(); kind {
	case '{':
		return w.object(path, field, object, listed, depth)
	case '[':
		return w.list(path, field, object, depth)
	case 'n':
	default:
		if len(w.leaves) >= MostLeaves {
			w.truncated = true
			return nil
		}
		w.leaves = append(w.leaves, Leaf{
			Path: path, Field: field, Text: token.String(), Object: max(0, object),
			Number: kind == '0', Bool: kind == 't' || kind == 'f',
		})
	}
	return nil
}

func (w *walker) object(path, field string, parent int, listed bool, depth int) error {
	self := len(w.objects)
	w.objects = append(w.objects, Object{Parent: parent, Field: field, Listed: listed})
	for w.in.PeekKind() != '}' {
		name, err := w.in.ReadToken()
		if err != nil {
			return err
		}
		key := name.String()
		if err := w.value(below(path, key), below(field, key), self, false, depth+1); err != nil {
			return err
		}
	}
	_, err := w.in.ReadToken()
	return err
}

func (w *walker) list(path, field string, object, depth int) error {
	for i := 0; w.in.PeekKind() != ']'; i++ {
		if err := w.value(path+"["+strconv.Itoa(i)+"]", field, object, true, depth+1); err != nil {
			return err
		}
	}
	_, err := w.in.ReadToken()
	return err
}

func below(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
