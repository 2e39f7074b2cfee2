// SPDX-License-Identifier: Apache-2.0

package order_test

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-dev/writ/agent/policy/order"
)

func TestAnOrderPermitsWhatItSays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, order string
		complete    []string
		open        []string
		refused     []string
	}{
		{"one call", "a", []string{"a"}, []string{""}, []string{"b", "a a"}},
		{"a sequence", "a -> b -> c", []string{"a b c"}, []string{"", "a", "a b"}, []string{"b", "a c", "a b c a"}},
		{"alternatives bind less than a sequence", "a -> b | c", []string{"a b", "c"}, []string{"a"}, []string{"a c"}},
		{"parentheses", "a -> (b | c)", []string{"a b", "a c"}, []string{"a"}, []string{"c"}},
		{"at most once", "a? -> b", []string{"b", "a b"}, []string{"a"}, []string{"a a"}},
		{"any number", "a* -> b", []string{"b", "a b", "a a a b"}, []string{"a a"}, []string{"b a"}},
		{"at least once", "a+ -> b", []string{"a b", "a a b"}, []string{"a"}, []string{"b"}},
		{"as often as that", "a{2}", []string{"a a"}, []string{"a"}, []string{"a a a"}},
		{"from and to", "a{1,2} -> b", []string{"a b", "a a b"}, []string{"a a"}, []string{"a a a", "b"}},
		{"from", "a{2,}", []string{"a a", "a a a a"}, []string{"a"}, []string{"b"}},
		{"up to", "a{0,2}", []string{"", "a", "a a"}, nil, []string{"a a a"}},
		{"groups that repeat", "(a -> b)+", []string{"a b", "a b a b"}, []string{"a b a"}, []string{"a a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o, err := order.Parse(c.order)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range c.complete {
				if at, ok := o.Walk(strings.Fields(path)); !ok || !o.Done(at) {
					t.Errorf("%q is not complete", path)
				}
			}
			for _, path := range c.open {
				if at, ok := o.Walk(strings.Fields(path)); !ok || o.Done(at) {
					t.Errorf("%q is complete, or not permitted", path)
				}
			}
			for _, path := range c.refused {
				if _, ok := o.Walk(strings.Fields(path)); ok {
					t.Errorf("%q is permitted", path)
				}
			}
		})
	}
}

func TestAnOrderThatCannotBeReadSaysWhere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, order, message string
		offset               int
	}{
		{"nothing", "", "the name of a tool is missing", 0},
		{"an arrow to nowhere", "a -> ", "the name of a tool is missing", 5},
		{"two names", "a b", "join calls", 2},
		{"an open parenthesis", "(a", "not closed", 2},
		{"a closed one too many", "a)", "join calls", 1},
		{"a capital", "A", "must stand the name", 0},
		{"an open brace", "a{2", "not closed", 3},
		{"braces without a number", "a{}", "numbers up to 100", 2},
		{"braces the wrong way round", "a{3,2}", "permit no call", 5},
		{"never", "a{0}", "permit no call", 3},
		{"a number that is too large", "a{101}", "numbers up to 100", 2},
		{"twice how often", "a+*", "join calls", 2},
		{"too deep", strings.Repeat("(", 40), "nested deeper", 33},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := order.Parse(c.order)
			var wrong *order.Error
			if !errors.As(err, &wrong) || wrong.Offset != c.offset || !strings.Contains(wrong.Message, c.message) {
				t.Errorf("got %v, want %q at %d", err, c.message, c.offset)
			}
		})
	}
}

func TestAnOrderThatIsTooLargeIsRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"(((a{100}){100}){100}){100}",
		// The classic whose deterministic automaton doubles with every step.
		"(a | b)* -> a -> (a | b){20}",
		strings.Repeat("a", 5000),
	} {
		if _, err := order.Parse(text); err == nil {
			t.Errorf("%.30q is taken", text)
		}
	}
}

func TestAnOrderTellsWhatCannotBe(t *testing.T) {
	t.Parallel()
	o, err := order.Parse("a -> (b -> c{2,3} | d+) -> e")
	if err != nil {
		t.Fatal(err)
	}
	names, endless := o.Unreachable(func(name string) bool { return name != "b" && name != "d" })
	if !slices.Equal(names, []string{"b", "c", "d", "e"}) || !endless {
		t.Errorf("without b and d nothing comes after a; got %v, endless %v", names, endless)
	}
	if names, endless = o.Unreachable(func(name string) bool { return name != "d" }); !slices.Equal(names, []string{"d"}) || endless {
		t.Errorf("without d the other way stays; got %v, endless %v", names, endless)
	}
	if o.Least("a") != 1 || o.Least("c") != 0 || o.Least("e") != 1 {
		t.Errorf("least: a %d, c %d, e %d", o.Least("a"), o.Least("c"), o.Least("e"))
	}
	if !o.AtLeast("c", 3) || o.AtLeast("c", 4) || !o.AtLeast("d", 5000) || o.AtLeast("a", 2) {
		t.Error("how often a complete sequence may call a tool is told wrong")
	}
	if got := o.Next(order.Start); !slices.Equal(got, []string{"a"}) {
		t.Errorf("next: %v", got)
	}
}

// An order permits what the same expression of Go's regexp package matches: an
// independent reading of the same language.
func TestAnOrderAgreesWithRegexp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := drawOrder(t, 3)
		o, err := order.Parse(text)
		if err != nil {
			t.Skip("too large")
		}
		other := regexp.MustCompile("^(" + strings.NewReplacer(" ", "", "->", "").Replace(text) + ")$")
		path := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 8).Draw(t, "path")
		at, ok := o.Walk(path)
		if got, want := ok && o.Done(at), other.MatchString(strings.Join(path, "")); got != want {
			t.Fatalf("%q: %v is complete: %v, and regexp says %v", text, path, got, want)
		}
	})
}

func drawOrder(t *rapid.T, depth int) string {
	if depth == 0 {
		return rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
	}
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		return drawOrder(t, 0)
	case 1:
		return "(" + drawOrder(t, depth-1) + " -> " + drawOrder(t, depth-1) + ")"
	case 2:
		return "(" + drawOrder(t, depth-1) + " | " + drawOrder(t, depth-1) + ")"
	default:
		return "(" + drawOrder(t, depth-1) + ")" + rapid.SampledFrom([]string{"?", "*", "+", "{2}", "{1,3}", "{2,}"}).Draw(t, "often")
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "a", "a -> b", "orders.look_up+ -> (policy.check | policy.waive) -> payments.refund?",
		"(a|b)*->a->(a|b){20}", "a{2,}", "a{1,3}", "((((a))))", "a{999}", "(", "->", "a->->b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := order.Parse(text)
		if err != nil {
			return
		}
		for _, name := range o.Names() {
			if !o.Speaks(name) {
				t.Fatalf("%q names %q and does not speak of it", text, name)
			}
			if least := o.Least(name); !o.AtLeast(name, least) {
				t.Fatalf("%q: %s at least %d times, and no sequence has it", text, name, least)
			}
		}
		if unreachable, endless := o.Unreachable(func(string) bool { return true }); len(unreachable) > 0 || endless {
			t.Fatalf("%q: with every call permitted %v cannot be reached, endless %v", text, unreachable, endless)
		}
	})
}
