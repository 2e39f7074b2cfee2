// SPDX-License-Identifier: Apache-2.0

package schemas_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/writ-dev/writ/tools/schemas"
)

// secret stands in texts that are refused; no refusal may hold it.
const secret = "5ecret"

func TestReadTakesOneFormOfEachValue(t *testing.T) {
	t.Parallel()
	every := typeOf(t, "kinds.v1.Every")
	cases := map[string]struct{ text, want string }{
		"an empty object":                    {`{}`, `{}`},
		"space between tokens":               {" {\n\"i32\" : 1 }\t", `{"i32":1}`},
		"the least 32-bit integer":           {`{"i32":-2147483648}`, `{"i32":-2147483648}`},
		"the largest 64-bit integer":         {`{"u64":18446744073709551615}`, `{"u64":18446744073709551615}`},
		"the least 64-bit integer":           {`{"i64":-9223372036854775808}`, `{"i64":-9223372036854775808}`},
		"minus zero is zero":                 {`{"maybe_number":-0,"real":-0.0,"boxed_real":-0e3}`, `{"maybe_number":0,"boxed_real":0}`},
		"zero without presence is absent":    {`{"i32":0,"text":"","flag":false,"colour":"COLOUR_UNSPECIFIED"}`, `{}`},
		"zero with presence is kept":         {`{"maybe_text":"","boxed_flag":false,"left":""}`, `{"maybe_text":"","left":"","boxed_flag":false}`},
		"an empty message is kept":           {`{"inner":{}}`, `{"inner":{}}`},
		"floats in any JSON spelling":        {`{"real":1.50,"single":1e2}`, `{"single":100,"real":1.5}`},
		"large and small floats":             {`{"real":1e300,"boxed_real":5e-324}`, `{"real":1e+300,"boxed_real":5e-324}`},
		"a float of 32 bits":                 {`{"single":0.1}`, `{"single":0.1}`},
		"escapes are undone":                 {`{"te\u0078t":"\u00e4\ud83d\ude00\/\u000a"}`, `{"text":"ä😀/\n"}`},
		"bytes":                              {`{"data":"AQI="}`, `{"data":"AQI="}`},
		"an enum by its first name":          {`{"colour":"COLOUR_RED"}`, `{"colour":"COLOUR_RED"}`},
		"a time":                             {`{"at":"2026-02-28T23:59:59Z"}`, `{"at":"2026-02-28T23:59:59Z"}`},
		"a time with a fraction":             {`{"at":"0001-01-01T00:00:00.500Z"}`, `{"at":"0001-01-01T00:00:00.5Z"}`},
		"a duration":                         {`{"took":"3.50s"}`, `{"took":"3.5s"}`},
		"a negative duration below a second": {`{"took":"-0.000000001s"}`, `{"took":"-0.000000001s"}`},
		"wrappers are their values":          {`{"boxed_text":"x","boxed_number":7,"boxed_data":""}`, `{"boxed_text":"x","boxed_number":7,"boxed_data":""}`},
		"maps in the order of keys":          {`{"by_number":{"10":1,"9":2,"-1":3},"by_text":{"b":"1","a":"2"}}`, `{"by_text":{"a":"2","b":"1"},"by_number":{"-1":3,"9":2,"10":1}}`},
		"maps of messages":                   {`{"by_flag":{"true":{"i32":1},"false":{}}}`, `{"by_flag":{"false":{},"true":{"i32":1}}}`},
		"lists":                              {`{"many":["a",""],"inners":[{},{"i32":1}],"times":["2026-01-01T00:00:00Z"]}`, `{"many":["a",""],"inners":[{},{"i32":1}],"times":["2026-01-01T00:00:00Z"]}`},
		"an empty list is absent":            {`{"many":[],"by_text":{}}`, `{}`},
		"json_name where it is given":        {`{"given-name":"x","under_score":"y"}`, `{"given-name":"x","under_score":"y"}`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := string(every.Append(nil, read(t, every, c.text)))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("Append(Read(%s)) (-want +got):\n%s", c.text, diff)
			}
			if again := string(every.Append(nil, read(t, every, got))); again != got {
				t.Errorf("read again: %s, want %s", again, got)
			}
		})
	}
}

func TestReadRefusesEverythingElse(t *testing.T) {
	t.Parallel()
	every := typeOf(t, "kinds.v1.Every")
	const mismatch, tooLarge = "SCHEMA_TYPE_MISMATCH ", "SCHEMA_NUMBER_OUT_OF_RANGE "
	cases := map[string]struct{ text, want string }{
		"nothing":                             {``, "DECODE_MALFORMED"},
		"space alone":                         {` `, "DECODE_MALFORMED"},
		"a cut object":                        {`{"text":"5ecret"`, "DECODE_MALFORMED"},
		"a cut string":                        {`{"text":"5ecr`, "DECODE_MALFORMED"},
		"something after it":                  {`{} {}`, "DECODE_MALFORMED"},
		"a NUL after it":                      {"{}\x00", "DECODE_MALFORMED"},
		"a comma at the end":                  {`{"i32":1,}`, "DECODE_MALFORMED"},
		"a comment":                           {`{/**/}`, "DECODE_MALFORMED"},
		"NaN":                                 {`{"real":NaN}`, "DECODE_MALFORMED"},
		"a leading zero":                      {`{"i32":01}`, "DECODE_MALFORMED"},
		"a plus":                              {`{"i32":+1}`, "DECODE_MALFORMED"},
		"a raw control character":             {"{\"text\":\"\x01\"}", "DECODE_MALFORMED"},
		"a byte order mark":                   {"\ufeff{}", "DECODE_MALFORMED"},
		"a key twice":                         {`{"text":"5ecret","text":"b"}`, "DECODE_DUPLICATE_KEY"},
		"a key twice by an escape":            {`{"text":"a","te\u0078t":"b"}`, "DECODE_DUPLICATE_KEY"},
		"a key twice in a map":                {`{"by_text":{"a":"1","\u0061":"2"}}`, "DECODE_DUPLICATE_KEY"},
		"a key twice in what is not known":    {`{"other":{"a":[{"b":1,"b":2}]}}`, "DECODE_DUPLICATE_KEY"},
		"a key twice after a type error":      {`{"i32":"1","text":"a","text":"b"}`, "DECODE_DUPLICATE_KEY"},
		"bytes that are not UTF-8":            {"{\"text\":\"\xff\"}", "DECODE_INVALID_UTF8"},
		"overlong UTF-8":                      {"{\"text\":\"\xc0\xaf\"}", "DECODE_INVALID_UTF8"},
		"a high surrogate alone":              {`{"text":"\ud800"}`, "DECODE_INVALID_UTF8"},
		"a low surrogate alone":               {`{"text":"\udc00x"}`, "DECODE_INVALID_UTF8"},
		"surrogates in the wrong order":       {`{"text":"\udc00\ud800"}`, "DECODE_INVALID_UTF8"},
		"a surrogate alone in a key":          {`{"\ud800":1}`, "DECODE_INVALID_UTF8"},
		"a list":                              {`[]`, "SCHEMA_TYPE_MISMATCH"},
		"null":                                {`null`, "SCHEMA_TYPE_MISMATCH"},
		"an unknown field":                    {`{"other":"5ecret"}`, "SCHEMA_UNKNOWN_FIELD other"},
		"an unknown field that is no name":    {`{"5ecret key":1}`, "SCHEMA_UNKNOWN_FIELD"},
		"the name protobuf derives":           {`{"underScore":"x"}`, "SCHEMA_UNKNOWN_FIELD underScore"},
		"the name where json_name is given":   {`{"given_name":"x"}`, "SCHEMA_UNKNOWN_FIELD given_name"},
		"another case":                        {`{"TEXT":"x"}`, "SCHEMA_UNKNOWN_FIELD TEXT"},
		"an unknown field below":              {`{"inners":[{},{"inner":{"other":1}}]}`, "SCHEMA_UNKNOWN_FIELD inners[1].inner.other"},
		"null for absent":                     {`{"maybe_text":null}`, mismatch + "maybe_text"},
		"null in a list":                      {`{"many":[null]}`, mismatch + "many[0]"},
		"null for a message":                  {`{"inner":null}`, mismatch + "inner"},
		"null for a list":                     {`{"many":null}`, mismatch + "many"},
		"null for a wrapper":                  {`{"boxed_text":null}`, mismatch + "boxed_text"},
		"a number from a string":              {`{"i64":"5"}`, mismatch + "i64"},
		"a float from a string":               {`{"real":"NaN"}`, mismatch + "real"},
		"a string from a number":              {`{"text":5}`, mismatch + "text"},
		"a boolean from a string":             {`{"flag":"true"}`, mismatch + "flag"},
		"a boolean from a number":             {`{"flag":1}`, mismatch + "flag"},
		"an integer with a fraction":          {`{"i32":1.0}`, mismatch + "i32"},
		"an integer with an exponent":         {`{"i64":1e3}`, mismatch + "i64"},
		"32 bits and one more":                {`{"i32":2147483648}`, tooLarge + "i32"},
		"32 bits and one less":                {`{"sf32":-2147483649}`, tooLarge + "sf32"},
		"unsigned and negative":               {`{"u32":-1}`, tooLarge + "u32"},
		"64 bits and one more":                {`{"i64":9223372036854775808}`, tooLarge + "i64"},
		"64 unsigned bits and one more":       {`{"f64":18446744073709551616}`, tooLarge + "f64"},
		"a double that overflows":             {`{"real":1e309}`, tooLarge + "real"},
		"a double that vanishes":              {`{"real":1e-400}`, tooLarge + "real"},
		"a double with digits it cannot hold": {`{"real":9007199254740993}`, tooLarge + "real"},
		"a float with digits it cannot hold":  {`{"single":16777217}`, tooLarge + "single"},
		"a huge exponent":                     {`{"real":1e99999999999999999999}`, tooLarge + "real"},
		"a huge exponent of zero":             {`{"real":0e99999999999999999999}`, tooLarge + "real"},
		"an enum by number":                   {`{"colour":1}`, mismatch + "colour"},
		"an enum by another name":             {`{"colour":"COLOUR_CRIMSON"}`, mismatch + "colour"},
		"an enum in lower case":               {`{"colour":"colour_red"}`, mismatch + "colour"},
		"base64 without padding":              {`{"data":"AQI"}`, mismatch + "data"},
		"base64 of URLs":                      {`{"data":"-_8="}`, mismatch + "data"},
		"base64 with bits left over":          {`{"data":"AQJ="}`, mismatch + "data"},
		"base64 with a line break":            {`{"data":"AQ\nI="}`, mismatch + "data"},
		"a time with an offset":               {`{"at":"2026-01-01T00:00:00+00:00"}`, mismatch + "at"},
		"a time with small letters":           {`{"at":"2026-01-01t00:00:00z"}`, mismatch + "at"},
		"a time with a leap second":           {`{"at":"2016-12-31T23:59:60Z"}`, mismatch + "at"},
		"a day that is not there":             {`{"at":"2026-02-29T00:00:00Z"}`, mismatch + "at"},
		"the year zero":                       {`{"at":"0000-01-01T00:00:00Z"}`, mismatch + "at"},
		"a time with ten digits":              {`{"at":"2026-01-01T00:00:00.0000000001Z"}`, mismatch + "at"},
		"a time with a dot alone":             {`{"at":"2026-01-01T00:00:00.Z"}`, mismatch + "at"},
		"a time with a comma":                 {`{"at":"2026-01-01T00:00:00,5Z"}`, mismatch + "at"},
		"a duration without unit":             {`{"took":"3"}`, mismatch + "took"},
		"a duration in minutes":               {`{"took":"3m"}`, mismatch + "took"},
		"a duration with a leading zero":      {`{"took":"03s"}`, mismatch + "took"},
		"a duration with a plus":              {`{"took":"+3s"}`, mismatch + "took"},
		"a duration over its range":           {`{"took":"315576000000.1s"}`, mismatch + "took"},
		"a key of a map with a leading zero":  {`{"by_number":{"01":1}}`, mismatch + "by_number"},
		"minus zero as a key after zero":      {`{"by_number":{"0":1,"-0":2}}`, mismatch + "by_number"},
		"a key of a map that is no boolean":   {`{"by_flag":{"True":{}}}`, mismatch + "by_flag"},
		"a wrong value in a map":              {`{"by_text":{"a":1}}`, mismatch + `by_text["a"]`},
		"two fields of a oneof":               {`{"left":"a","right":1}`, "SCHEMA_FIELD_TWICE right"},
		"two zero fields of a oneof":          {`{"right":0,"left":""}`, "SCHEMA_FIELD_TWICE left"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := every.Read([]byte(c.text), nil, schemas.Limits{})
			if got := refusalOf(err); got != c.want {
				t.Errorf("Read(%s): %q, want %q (%v)", c.text, got, c.want, err)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the refusal holds a value: %v", err)
			}
		})
	}
}

func TestReadSaysWhatItExpectedAndFound(t *testing.T) {
	t.Parallel()
	every := typeOf(t, "kinds.v1.Every")
	for text, want := range map[string]string{
		`{"i64":"5ecret"}`:      "SCHEMA_TYPE_MISMATCH: i64: expected an integer of type int64 as a number, found a string",
		`{"colour":"5ecret"}`:   "SCHEMA_TYPE_MISMATCH: colour: expected a string with the name of a value of Colour, found another text",
		`{"many":{"5ecret":1}}`: "SCHEMA_TYPE_MISMATCH: many: expected an array of a string, found an object",
		`{"text":null}`:         "SCHEMA_TYPE_MISMATCH: text: expected a string, found null; leave the field out",
	} {
		if _, err := every.Read([]byte(text), nil, schemas.Limits{}); err == nil || err.Error() != want {
			t.Errorf("Read(%s): %v, want %s", text, err, want)
		}
	}
}

func TestReadKeepsItsLimitsExactly(t *testing.T) {
	t.Parallel()
	every := typeOf(t, "kinds.v1.Every")
	deep := strings.Repeat(`{"inner":`, 9) + `{}` + strings.Repeat(`}`, 9) // 10 objects, 9 keys
	for name, c := range map[string]struct {
		limits schemas.Limits
		want   string
	}{
		"a byte to spare":     {schemas.Limits{Bytes: len(deep) + 1}, ""},
		"exactly the bytes":   {schemas.Limits{Bytes: len(deep)}, ""},
		"a byte too many":     {schemas.Limits{Bytes: len(deep) - 1}, "DECODE_TOO_LARGE"},
		"a level to spare":    {schemas.Limits{Depth: 11}, ""},
		"exactly the depth":   {schemas.Limits{Depth: 10}, ""},
		"a level too deep":    {schemas.Limits{Depth: 9}, "DECODE_TOO_DEEP"},
		"a value to spare":    {schemas.Limits{Values: 20}, ""},
		"exactly the values":  {schemas.Limits{Values: 19}, ""},
		"a value too many":    {schemas.Limits{Values: 18}, "DECODE_TOO_LARGE"},
		"the default is deep": {schemas.Limits{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := every.Read([]byte(deep), nil, c.limits); refusalOf(err) != c.want {
				t.Errorf("Read: %v, want %q", err, c.want)
			}
			if err := schemas.Check([]byte(deep), c.limits); refusalOf(err) != c.want {
				t.Errorf("Check: %v, want %q", err, c.want)
			}
		})
	}
}

func TestParametersAreReadByTheSameRules(t *testing.T) {
	t.Parallel()
	every := typeOf(t, "kinds.v1.Every")
	for name, c := range map[string]struct {
		text, field, value, want string
		refused                  bool
	}{
		"a string":                   {`{}`, "text", "a b", `{"text":"a b"}`, false},
		"a number":                   {`{}`, "i64", "7", `{"i64":7}`, false},
		"a boolean":                  {`{}`, "flag", "true", `{"flag":true}`, false},
		"an enum":                    {`{}`, "colour", "COLOUR_RED", `{"colour":"COLOUR_RED"}`, false},
		"a time":                     {`{}`, "at", "2026-01-01T00:00:00Z", `{"at":"2026-01-01T00:00:00Z"}`, false},
		"a wrapper":                  {`{}`, "boxed_number", "7", `{"boxed_number":7}`, false},
		"a field below":              {`{"inner":{"i32":1}}`, "inner.text", "x", `{"inner":{"i32":1,"text":"x"}}`, false},
		"an unknown field":           {`{}`, "other", "x", "SCHEMA_UNKNOWN_FIELD other", true},
		"below a scalar":             {`{}`, "text.x", "x", "SCHEMA_UNKNOWN_FIELD text", true},
		"a list":                     {`{}`, "many", "x", "SCHEMA_TYPE_MISMATCH many", true},
		"a number with space":        {`{}`, "i64", " 7", "SCHEMA_TYPE_MISMATCH i64", true},
		"a number in hexadecimal":    {`{}`, "real", "0x1p4", "SCHEMA_TYPE_MISMATCH real", true},
		"infinity":                   {`{}`, "real", "Inf", "SCHEMA_TYPE_MISMATCH real", true},
		"a number with underscores":  {`{}`, "i64", "1_0", "SCHEMA_TYPE_MISMATCH i64", true},
		"an empty number":            {`{}`, "i64", "", "SCHEMA_TYPE_MISMATCH i64", true},
		"a boolean as a digit":       {`{}`, "flag", "1", "SCHEMA_TYPE_MISMATCH flag", true},
		"given in both places":       {`{"text":"a"}`, "text", "b", "SCHEMA_FIELD_TWICE text", true},
		"given as zero in the body":  {`{"text":""}`, "text", "b", "SCHEMA_FIELD_TWICE text", true},
		"given below as zero":        {`{"inner":{"i32":0}}`, "inner.i32", "1", "SCHEMA_FIELD_TWICE inner.i32", true},
		"another field of the oneof": {`{"left":""}`, "right", "1", "SCHEMA_FIELD_TWICE right", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			message, err := every.Read([]byte(c.text), []schemas.Param{{Field: c.field, Value: c.value}}, schemas.Limits{})
			got := refusalOf(err)
			if err == nil {
				got = string(every.Append(nil, message))
			}
			if got != c.want || (err != nil) != c.refused {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	twice := []schemas.Param{{Field: "i64", Value: "0"}, {Field: "i64", Value: "1"}}
	if _, err := every.Read([]byte(`{}`), twice, schemas.Limits{}); refusalOf(err) != "SCHEMA_FIELD_TWICE i64" {
		t.Errorf("a parameter twice: %v", err)
	}
}
