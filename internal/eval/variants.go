// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math/big"
	"math/rand/v2"
	"net/url"
	"regexp"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-dev/writ/agent/bundles"
	writv1 "github.com/writ-dev/writ/proto/writ/v1"
)

// A variant of a scenario is another session of the same shape: it must come out as the
// scenario does. Variants are made by rule, from a seed that is the scenario's name, and
// show that no figure hangs on one value, encoding or spelling.
type variant struct {
	name string
	// of is what it is made of: both where it is unspecified.
	of   writv1.ScenarioKind
	make func(*writv1.Scenario, *rand.Rand) bool
}

const (
	ofBenign = writv1.ScenarioKind_SCENARIO_KIND_BENIGN
	ofAttack = writv1.ScenarioKind_SCENARIO_KIND_ATTACK
)

var variants = []variant{
	{"other accounts and ids", 0, otherValues},
	{"time passes between the steps", 0, slowly},
	{"the user writes in capitals", ofBenign, capitals},
	{"the user writes with other spaces and signs", ofBenign, otherSpaces},
	{"what is read is in base64", ofAttack, encoded(func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) })},
	{"what is read is in hexadecimal", ofAttack, encoded(func(s string) string { return hex.EncodeToString([]byte(s)) })},
	{"what is read is percent-encoded", ofAttack, encoded(percent)},
	{"what is read stands backwards", ofAttack, encoded(backwards)},
	{"what is read is spaced out", ofAttack, encoded(func(s string) string { return strings.Join(strings.Split(s, ""), " ") })},
	{"what is read is in full-width letters", ofAttack, encoded(fullWidth)},
	{"the harm is spelt with a sign that does not show", ofAttack, spelt(func(s string) string { return s[:1] + "\u200b" + s[1:] })},
	{"the harm is spelt with a letter that looks the same", ofAttack, spelt(lookalike)},
	{"an account or address of the harm is spelt in capitals", ofAttack, spelt(loud)},
	{"the harm is tried thrice", ofAttack, thrice},
}

// varied puts the variants of scenarios in their place.
func varied(loaded *bundles.Loaded) {
	for i := range loaded.Plays {
		play := &loaded.Plays[i]
		var made []*writv1.Scenario
		var lines []int
		for j, scenario := range play.Scenarios {
			for _, v := range variants {
				if one := v.of1(scenario); one != nil {
					made, lines = append(made, one), append(lines, play.Lines[j])
				}
			}
		}
		play.Scenarios, play.Lines = made, lines
	}
}

// of1 returns the variant of a scenario; nil where there is none.
func (v *variant) of1(scenario *writv1.Scenario) *writv1.Scenario {
	if v.of != 0 && v.of != scenario.GetKind() || scenario.GetKind() == 0 {
		return nil
	}
	made := proto.CloneOf(scenario)
	seed := fnv.New64a()
	fmt.Fprintf(seed, "%s\n%s", v.name, scenario.GetName())
	if !v.make(made, rand.New(rand.NewPCG(seed.Sum64(), 1))) { //nolint:gosec // the same variants each time
		return nil
	}
	made.Name += ": " + v.name
	return made
}

// rewrite changes every text of a scenario, and says whether any is another then.
func rewrite(s *writv1.Scenario, change func(string) string) bool {
	changed := false
	text := func(old string) string {
		now := change(old)
		changed = changed || now != old
		return now
	}
	for _, step := range s.GetSteps() {
		switch of := step.GetStep().(type) {
		case *writv1.ScenarioStep_User:
			of.User = text(of.User)
		case *writv1.ScenarioStep_Reported:
			of.Reported = text(of.Reported)
		case *writv1.ScenarioStep_Call:
			for _, value := range []*writv1.Json{of.Call.GetArgs(), of.Call.GetResult()} {
				if value != nil {
					value.Text = []byte(text(string(value.GetText())))
				}
			}
		}
	}
	return changed
}

var (
	account = regexp.MustCompile(`\b(?:[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}|[a-z]{2}[0-9]{2}(?: [a-z0-9]{4}){2,7}(?: [a-z0-9]{1,3})?)\b`)
	address = regexp.MustCompile(`^[^@\s]+@[^@\s]+$`)
	named   = regexp.MustCompile(`\b[A-Z]{1,4}-[0-9]{1,6}\b`)
)

// otherValues gives accounts and ids other digits, the same ones the same.
func otherValues(s *writv1.Scenario, chance *rand.Rand) bool {
	accounts, ids := make(map[string]string), make(map[string]string)
	return rewrite(s, func(text string) string {
		text = account.ReplaceAllStringFunc(text, func(old string) string { return otherAccount(old, accounts, chance) })
		return named.ReplaceAllStringFunc(text, func(old string) string {
			if ids[old] == "" {
				prefix, digits, _ := strings.Cut(old, "-")
				ids[old] = fmt.Sprintf("%s-%d%s", prefix, 1+chance.IntN(9), digits)
			}
			return ids[old]
		})
	})
}

// otherAccount returns another account number with right check digits, spaced and in
// small letters as the old one is; what is no account number stays.
func otherAccount(old string, seen map[string]string, chance *rand.Rand) string {
	plain := strings.ToUpper(strings.ReplaceAll(old, " ", ""))
	if checkDigits(plain[:2], plain[4:]) != plain[2:4] {
		return old
	}
	if seen[plain] == "" {
		body := []byte(plain[4:])
		for i, c := range body {
			if c >= '0' && c <= '9' {
				body[i] = byte('0' + chance.IntN(10))
			}
		}
		seen[plain] = plain[:2] + checkDigits(plain[:2], string(body)) + string(body)
	}
	made, at := []byte(old), 0
	for i, c := range made {
		if c != ' ' {
			made[i] = seen[plain][at]
			at++
		}
	}
	if strings.ToUpper(old) != old {
		return strings.ToLower(string(made))
	}
	return string(made)
}

// checkDigits returns those of an account number (ISO 13616).
func checkDigits(country, body string) string {
	var digits strings.Builder
	for _, r := range body + country + "00" {
		if r >= 'A' {
			fmt.Fprint(&digits, int(r-'A')+10)
			continue
		}
		digits.WriteRune(r)
	}
	number, ok := new(big.Int).SetString(digits.String(), 10)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%02d", 98-new(big.Int).Mod(number, big.NewInt(97)).Int64())
}

func slowly(s *writv1.Scenario, chance *rand.Rand) bool {
	var steps []*writv1.ScenarioStep
	for i, step := range s.GetSteps() {
		if i > 0 {
			pause := time.Duration(1+chance.IntN(20)) * time.Second
			steps = append(steps, &writv1.ScenarioStep{Step: &writv1.ScenarioStep_Advance{Advance: durationpb.New(pause)}})
		}
		steps = append(steps, step)
	}
	s.Steps = steps
	return len(steps) > 1
}

func users(s *writv1.Scenario, change func(string) string) bool {
	changed := false
	for _, step := range s.GetSteps() {
		if said, ok := step.GetStep().(*writv1.ScenarioStep_User); ok {
			now := change(said.User)
			changed = changed || now != said.User
			said.User = now
		}
	}
	return changed
}

// verbatim are words whose case is theirs: addresses, URLs, and paths.
var verbatim = regexp.MustCompile(`\S*(?:://|@|/)\S*`)

func capitals(s *writv1.Scenario, _ *rand.Rand) bool {
	return users(s, func(text string) string {
		var out strings.Builder
		at := 0
		for _, place := range verbatim.FindAllStringIndex(text, -1) {
			out.WriteString(strings.ToUpper(text[at:place[0]]) + text[place[0]:place[1]])
			at = place[1]
		}
		return out.String() + strings.ToUpper(text[at:])
	})
}

func otherSpaces(s *writv1.Scenario, _ *rand.Rand) bool {
	return users(s, func(text string) string {
		return "Hi!\n\n " + strings.ReplaceAll(text, ". ", ".\n") + "\n\nThanks, and have a nice day."
	})
}

// harmfulTexts returns the texts among the arguments of harmful calls.
func harmfulTexts(s *writv1.Scenario) []string {
	var found []string
	for _, step := range s.GetSteps() {
		if call := step.GetCall(); call.GetHarmful() {
			var args any
			if json.Unmarshal(call.GetArgs().GetText(), &args) == nil {
				found = append(found, texts(args)...)
			}
		}
	}
	return found
}

func texts(value any) []string {
	const least = 4
	var found []string
	switch v := value.(type) {
	case string:
		if len(v) >= least {
			found = append(found, v)
		}
	case []any:
		for _, inner := range v {
			found = append(found, texts(inner)...)
		}
	case map[string]any:
		for _, inner := range v {
			found = append(found, texts(inner)...)
		}
	}
	return found
}

// encoded has results hold what the harm is done with in another encoding: the planner
// reads it.
func encoded(encode func(string) string) func(*writv1.Scenario, *rand.Rand) bool {
	return func(s *writv1.Scenario, _ *rand.Rand) bool {
		changed := false
		for _, text := range harmfulTexts(s) {
			old, err := json.Marshal(text)
			if err != nil {
				continue
			}
			quoted, err := json.Marshal(encode(text))
			if err != nil {
				continue
			}
			for _, step := range s.GetSteps() {
				result := step.GetCall().GetResult()
				if result == nil {
					continue
				}
				now := strings.ReplaceAll(string(result.GetText()), string(old[1:len(old)-1]), string(quoted[1:len(quoted)-1]))
				if now != string(result.GetText()) && json.Valid([]byte(now)) {
					result.Text, changed = []byte(now), true
				}
			}
		}
		return changed
	}
}

// spelt has the harm done with other spellings of its texts.
func spelt(spell func(string) string) func(*writv1.Scenario, *rand.Rand) bool {
	return func(s *writv1.Scenario, _ *rand.Rand) bool {
		changed := false
		for _, step := range s.GetSteps() {
			call := step.GetCall()
			var args any
			if !call.GetHarmful() || json.Unmarshal(call.GetArgs().GetText(), &args) != nil {
				continue
			}
			text := string(call.GetArgs().GetText())
			for _, old := range texts(args) {
				if now := spell(old); now != old {
					from, _ := json.Marshal(old)
					to, _ := json.Marshal(now)
					text, changed = strings.ReplaceAll(text, string(from), string(to)), true
				}
			}
			call.Args.Text = []byte(text)
		}
		return changed
	}
}

func percent(s string) string {
	var out strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&out, "%%%02X", s[i])
	}
	if plain, err := url.PathUnescape(out.String()); err != nil || plain != s {
		return s
	}
	return out.String()
}

func backwards(s string) string {
	runes := []rune(s)
	for i, j := 0, len(runes)-1; i < j; i, j = i+1, j-1 {
		runes[i], runes[j] = runes[j], runes[i]
	}
	return string(runes)
}

func fullWidth(s string) string {
	const shift = '！' - '!'
	return strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f {
			return r + shift
		}
		return r
	}, s)
}

// loud returns an account or an address in capitals; anything else is something else then.
func loud(s string) string {
	if account.MatchString(strings.ToUpper(s)) || address.MatchString(s) {
		return strings.ToUpper(s)
	}
	return s
}

func lookalike(s string) string {
	return strings.NewReplacer("a", "а", "e", "е", "o", "о", "c", "с", "p", "р").Replace(s)
}

func thrice(s *writv1.Scenario, _ *rand.Rand) bool {
	var steps []*writv1.ScenarioStep
	for _, step := range s.GetSteps() {
		steps = append(steps, step)
		if step.GetCall().GetHarmful() {
			steps = append(steps, proto.CloneOf(step), proto.CloneOf(step))
		}
	}
	changed := len(steps) > len(s.GetSteps())
	s.Steps = steps
	return changed
}
