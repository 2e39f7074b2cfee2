// SPDX-License-Identifier: Apache-2.0

package atoms

import (
	"encoding/base64"
	"encoding/hex"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// layers is how many encodings, one within the other, are undone.
	layers = 2
	// mostReadings is how many texts one is read as.
	mostReadings = 64
	// leastEncoded is the length from which on a run of letters may be an encoding.
	leastEncoded = 8
)

var (
	encodedRun = regexp.MustCompile(`[A-Za-z0-9+/_-]{8,}={0,2}`)
	hexRun     = regexp.MustCompile(`(?:[0-9A-Fa-f]{2}[ :]?){4,}`)
	// apart are single signs of any kind with a space between.
	apart  = regexp.MustCompile(`(?:^|\s)(?:\S ){7,}\S(?:\s|$)`)
	spaced = regexp.MustCompile(`(?:\b[\p{L}\p{N}][ .\-_]){2,}[\p{L}\p{N}]\b`)
)

// Egress returns a text and what it says when it is read as something else: without
// what does not show, with letters of other scripts that look alike, with letters
// that stand apart joined, from its end, and decoded, as a whole and in its parts,
// two layers deep (percent, base64, base64url, hexadecimal). Truncated says that
// there was more than is read.
func Egress(text string) (readings []string, truncated bool) {
	text, truncated = clip(text)
	e := &egress{seen: map[string]bool{}, truncated: truncated}
	e.add(text)
	next := 0
	for range layers {
		for end := len(e.readings); next < end; next++ {
			e.decode(e.readings[next])
		}
	}
	for _, reading := range slices.Clone(e.readings) {
		e.add(joinSpaced(reading))
		e.add(parts(reading, "/?&=#;,"))
		e.add(parts(reading, "/?&=#;,.+_-"))
	}
	e.add(reversed(text))
	return e.readings, e.truncated
}

// Decoded returns what a text says in the encodings that [Egress] undoes, without the text
// itself: what is read may be encoded so that it is not known again when it comes back
// plain. Of texts from their end on it knows those with a URL in them.
func Decoded(text string) []string {
	text, _ = clip(text)
	e := &egress{seen: map[string]bool{}}
	e.add(text)
	plain := len(e.readings)
	next := 0
	for range layers {
		for end := len(e.readings); next < end; next++ {
			e.decode(e.readings[next])
		}
	}
	for _, reading := range slices.Clone(e.readings) {
		e.add(joinSpaced(reading))
	}
	if strings.Contains(text, "//:") {
		e.add(reversed(text))
	}
	return e.readings[plain:]
}

type egress struct {
	readings  []string
	seen      map[string]bool
	truncated bool
}

func (e *egress) add(text string) {
	text = fold(text)
	if text == "" || e.seen[text] {
		return
	}
	if len(e.readings) >= mostReadings {
		e.truncated = true
		return
	}
	e.seen[text] = true
	e.readings = append(e.readings, text)
}

// decode adds what a text and the runs in it decode to.
func (e *egress) decode(text string) {
	if strings.Contains(text, "%") {
		if plain, err := url.PathUnescape(text); err == nil {
			e.addText([]byte(plain))
		}
	}
	for _, run := range encodedRun.FindAllString(text, 4*mostReadings) {
		e.addText(fromBase64(run))
	}
	for _, run := range hexRun.FindAllString(text, 4*mostReadings) {
		digits := strings.NewReplacer(" ", "", ":", "").Replace(run)
		if plain, err := hex.DecodeString(digits); err == nil {
			e.addText(plain)
		}
	}
	if joined := strings.Join(strings.Fields(text), ""); joined != text && encodedRun.FindString(joined) == joined {
		e.addText(fromBase64(joined))
	}
}

// addText adds bytes that are text that people read.
func (e *egress) addText(plain []byte) {
	if len(plain) < 4 || !utf8.Valid(plain) {
		return
	}
	text := string(plain)
	printable := 0
	for _, r := range text {
		if unicode.IsPrint(r) || unicode.IsSpace(r) {
			printable++
		}
	}
	if printable*10 >= utf8.RuneCountInString(text)*9 {
		e.add(text)
	}
}

func fromBase64(run string) []byte {
	if len(run) < leastEncoded {
		return nil
	}
	run = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(run, "="))
	plain, err := base64.RawStdEncoding.DecodeString(run)
	if err != nil {
		return nil
	}
	return plain
}

// lookalikes are letters that look like Latin ones (Unicode Technical Standard 39,
// the commonest of its confusables).
var lookalikes = strings.NewReplacer(
	"а", "a", "е", "e", "о", "o", "р", "p", "с", "c", "у", "y", "х", "x", "і", "i", "ј", "j", "ѕ", "s", "һ", "h", "ԁ", "d", "ԛ", "q", "ԝ", "w",
	"А", "A", "В", "B", "Е", "E", "К", "K", "М", "M", "Н", "H", "О", "O", "Р", "P", "С", "C", "Т", "T", "Х", "X", "І", "I", "Ѕ", "S",
	"α", "a", "ο", "o", "ν", "v", "ρ", "p", "ι", "i", "κ", "k", "Α", "A", "Β", "B", "Ε", "E", "Ζ", "Z", "Η", "H", "Ι", "I", "Κ", "K", "Μ", "M", "Ν", "N", "Ο", "O", "Ρ", "P", "Τ", "T", "Χ", "X", "Υ", "Y",
)

// fold returns a text without what does not show, and with Latin letters for those
// that look like them where a word mixes the two.
func fold(text string) string {
	text = strings.Map(visible, strings.ToValidUTF8(text, ""))
	if mixes(text) {
		text = lookalikes.Replace(text)
	}
	return text
}

// joinSpaced joins letters that stand apart: s e c r e t.
func joinSpaced(text string) string {
	text = apart.ReplaceAllStringFunc(text, func(run string) string {
		return " " + strings.ReplaceAll(run, " ", "") + " "
	})
	return spaced.ReplaceAllStringFunc(text, func(run string) string {
		return strings.Map(func(r rune) rune {
			if strings.ContainsRune(" .-_", r) {
				return -1
			}
			return r
		}, run)
	})
}

// parts returns a text with the parts of its URLs apart, as the separators part them:
// what stands in a query is a value of its own.
func parts(text, separators string) string {
	if !strings.Contains(text, "://") {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(separators, r) {
			return ' '
		}
		return r
	}, text)
}

func reversed(text string) string {
	runes := []rune(text)
	slices.Reverse(runes)
	return string(runes)
}

// Secret is something in a text that looks like a secret.
type Secret struct {
	// Kind says what it looks like.
	Kind string
	// Start and End are its place in the text.
	Start, End int
}

// secretForms are the forms of secrets that are known by how they begin.
var secretForms = []struct {
	kind string
	form *regexp.Regexp
}{
	{"private key", regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----|AGE-SECRET-KEY-1[0-9A-Z]{20,}`)},
	{"AWS access key", regexp.MustCompile(`\b(?:AKIA|ASIA)[0-9A-Z]{16}\b`)},
	{"GitHub token", regexp.MustCompile(`\b(?:gh[pousr]_[0-9A-Za-z]{20,}|github_pat_[0-9A-Za-z_]{20,})`)},
	{"GitLab token", regexp.MustCompile(`\bglpat-[0-9A-Za-z_-]{16,}`)},
	{"Slack token", regexp.MustCompile(`\bxox[abeoprs]-[0-9A-Za-z-]{10,}`)},
	{"API key", regexp.MustCompile(`\b(?:sk|pk|rk)[-_](?:live|test|proj|ant)[-_][0-9A-Za-z_-]{10,}|\bsk-[0-9A-Za-z]{20,}|\bAIza[0-9A-Za-z_-]{30,}|\bnpm_[0-9A-Za-z]{30,}|\bpypi-[0-9A-Za-z_-]{30,}`)},
	{"JSON Web Token", regexp.MustCompile(`\beyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}`)},
	{"URL with a password", regexp.MustCompile(`(?i)\b[a-z][a-z0-9+.-]+://[^\s/:@]+:[^\s/:@]{3,}@`)},
	{"labelled secret", regexp.MustCompile(`(?i)(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|api[ _-]?key|access[ _-]?key|private[ _-]?key|credential|pin(?:[ _-]?code)?|cvv|cvc|ssn|otp|one[ -]time (?:code|password)|verification code|security code|kennwort|passwort|geheimnis|mot de passe|contraseña|clave|senha|wachtwoord|hasło|parola|пароль|密码)["']?\s*(?:is|ist|est|es|é|jest|=|:|->|：)+\s*["'\x60]?([^\s"'\x60,;]{3,})`)},
}

var cardRun = regexp.MustCompile(`\b[0-9](?:[ -]?[0-9]){12,18}\b`)

// Secrets returns what in a text looks like a secret: forms that are known, what a
// word such as "password" labels, payment cards with a right check digit (ISO/IEC
// 7812), and long runs without order in them.
func Secrets(text string) []Secret {
	text, _ = clip(text)
	var all []Secret
	for _, f := range secretForms {
		for _, at := range f.form.FindAllStringSubmatchIndex(text, mostReadings) {
			start, end := at[0], at[1]
			if len(at) > 2 && at[2] >= 0 {
				start, end = at[2], at[3]
			}
			all = append(all, Secret{f.kind, start, end})
		}
	}
	for _, at := range cardRun.FindAllStringIndex(text, mostReadings) {
		if luhn(onlyDigits(text[at[0]:at[1]])) {
			all = append(all, Secret{"payment card", at[0], at[1]})
		}
	}
	for _, at := range encodedRun.FindAllStringIndex(text, 4*mostReadings) {
		if random(text[at[0]:at[1]]) {
			all = append(all, Secret{"random text", at[0], at[1]})
		}
	}
	return all
}

// luhn checks the last digit of a card's number.
func luhn(digits string) bool {
	sum := 0
	for i := range len(digits) {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0 && strings.Trim(digits, "0") != ""
}

const (
	// randomLength and randomBits are from where on a run of letters and digits is
	// taken for random: names and words have fewer bits a letter, and hexadecimal
	// digests have at most 4.
	randomLength = 24
	randomBits   = 4.2
)

// random says whether a run has letters of both cases and digits, and no order.
func random(run string) bool {
	if len(run) < randomLength {
		return false
	}
	var upper, lower, digit bool
	count := make(map[rune]int)
	for _, r := range run {
		upper, lower, digit = upper || unicode.IsUpper(r), lower || unicode.IsLower(r), digit || unicode.IsDigit(r)
		count[r]++
	}
	bits := 0.0
	for _, n := range count {
		p := float64(n) / float64(len(run))
		bits -= p * math.Log2(p)
	}
	return upper && lower && digit && bits > randomBits
}
