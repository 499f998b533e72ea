package main

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// grid prints text in columns. Columns only get wider, so that rows may still
// come when others are printed already.
type grid struct {
	out    io.Writer
	indent string
	widths []int
	rows   [][]string
}

const gap = 3 // between columns

// row adds a row; cells of one row may be fewer than those of another.
func (g *grid) row(cells ...string) {
	for i, cell := range cells {
		if i == len(g.widths) {
			g.widths = append(g.widths, 0)
		}
		if i < len(cells)-1 { // nothing stands beside the last
			g.widths[i] = max(g.widths[i], utf8.RuneCountInString(cell))
		}
	}
	g.rows = append(g.rows, cells)
}

// flush prints the rows that were added since the last time.
func (g *grid) flush() error {
	for _, cells := range g.rows {
		var b strings.Builder
		b.WriteString(g.indent)
		for i, cell := range cells {
			b.WriteString(cell)
			if i < len(cells)-1 {
				b.WriteString(strings.Repeat(" ", g.widths[i]-utf8.RuneCountInString(cell)+gap))
			}
		}
		if _, err := fmt.Fprintln(g.out, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	g.rows = nil
	return nil
}
