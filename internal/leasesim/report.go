// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

// table is the figures in Markdown.
func table(f *Figures) string {
	var b strings.Builder
	row := func(what, figure string, args ...any) {
		fmt.Fprintf(&b, "| %s | %s |\n", what, fmt.Sprintf(figure, args...))
	}
	row("simulated", "figure")
	row("---", "---")
	row("agents, window, lease", "%d, %s, %s", agents, window, lease)
	row("asked for, of a limit of "+fmt.Sprint(limit), "%d in %d calls", f.Asked, f.Calls)
	row("**overshoot**: spent and in agents' hands at once, beyond the limit", "**%d**", f.Overshoot)
	row("**utilisation**: spent by the end of the window", "**%.1f%%**", f.Utilisation())
	row("calls denied while less than half was spent", "%.1f%%", 100*float64(f.Early)/float64(f.Calls))
	row("asks of one agent in a minute", "%.1f", float64(f.Asks)/agents/window.Minutes())
	row("agents killed, machines down, volumes lost", "%d, %d, %d", f.Kills, f.Crashes, f.Losses)
	row("partitions, of 30 s to 5 min", "%d", f.Partitions)
	row("clocks", "up to an hour off, and 0.1%% fast or slow")
	return b.String()
}

// The picture's size, and where its axes are.
const (
	width, height             = 720, 300
	left, right, top, bottom  = 56, 704, 16, 264
	mostAxis                  = limit * 12 / 10
	grey, blue, orange, green = "#9a9a9a", "#2a6fbb", "#d9822b", "#3c8d40"
)

// graph is the run as SVG.
func graph(f *Figures) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	for percent := int64(0); percent <= 100; percent += 25 {
		y := vertical(limit * percent / 100)
		fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#e4e4e4"/><text x="%d" y="%d" text-anchor="end">%d%%</text>`+"\n", left, y, right, y, left-6, y+4, percent)
	}
	for minute := 0; minute <= int(window.Minutes()); minute += 5 {
		x := left + (right-left)*minute/int(window.Minutes())
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%d min</text>`+"\n", x, bottom+18, minute)
	}
	line := func(colour, label string, row int, of func(Point) int64) {
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="2" points="`, colour)
		for _, p := range f.Points {
			if v := of(p); v <= mostAxis {
				fmt.Fprintf(&b, "%d,%d ", left+int((right-left)*p.At/window), vertical(v))
			}
		}
		fmt.Fprintf(&b, `"/><text x="%d" y="%d" fill="%s">%s</text>`+"\n", right-220, bottom-60+18*row, colour, label)
	}
	line(grey, "asked for", 0, func(p Point) int64 { return p.Asked })
	line(orange, "spent and in agents' hands", 1, func(p Point) int64 { return p.Hands })
	line(blue, "spent", 2, func(p Point) int64 { return p.Spent })
	y := vertical(limit)
	fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="%s" stroke-dasharray="6 3"/><text x="%d" y="%d" fill="%s">limit</text>`+"\n",
		left, y, right, y, green, left+6, y-5, green)
	b.WriteString("</svg>\n")
	return b.String()
}

func vertical(v int64) int { return bottom - int((bottom-top)*v/mostAxis) }
