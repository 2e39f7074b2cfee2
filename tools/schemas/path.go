// SPDX-License-Identifier: Apache-2.0

package schemas

import (
	"strconv"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/writ-dev/writ/proto/reasons"
)

// within puts a step before the path of a refusal.
func within(step string, refusal *reasons.Error) *reasons.Error {
	switch {
	case refusal.Reason < firstOfSchema:
		// The place of a syntax error is a byte, not a field.
	case refusal.Field == "" || refusal.Field[0] == '[':
		refusal.Field = step + refusal.Field
	default:
		refusal.Field = step + "." + refusal.Field
	}
	return refusal
}

func index(i int) string { return "[" + strconv.Itoa(i) + "]" }

// subscript is the step to a map's value. The key of a sensitive map is not shown.
func subscript(f *field, key protoreflect.MapKey) string {
	if f.sensitivity != 0 {
		return ""
	}
	return "[" + string(appendText(nil, key.String())) + "]"
}

// join appends a name to a path.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// isName reports whether text could be the name of a field. What has many digits is
// rather a number, an account or a secret that was put in its place.
func isName(text string) bool {
	const longest, mostDigits = 64, 3
	digits := 0
	for i := range len(text) {
		c := text[i]
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
		if !letter {
			digits++
		}
	}
	return text != "" && len(text) <= longest && digits <= mostDigits
}
