//go:build linux

package main

import (
	"bytes"
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A series is what the chart shows of one row: each tool's median, and a line from it to the 99th percentile.
type series struct {
	plotter.XYs
	plotter.XErrors
}

// marks tell the series apart, also without colours.
var marks = []struct {
	shape draw.GlyphDrawer
	color color.Color
}{
	{draw.CircleGlyph{}, color.RGBA{R: 0x1b, G: 0x6c, B: 0xa8, A: 0xff}},
	{draw.TriangleGlyph{}, color.RGBA{R: 0xd9, G: 0x77, B: 0x06, A: 0xff}},
	{draw.BoxGlyph{}, color.RGBA{R: 0xa8, G: 0x1b, B: 0x4c, A: 0xff}},
}

// chart draws the rows that have tails as an SVG.
func (r report) chart() ([]byte, error) {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	p := plot.New()
	p.Title.Text = "Create to first command's result: median, and line to 99th percentile"
	p.X.Label.Text = "ms"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Legend.Top = true
	grid := plotter.NewGrid()
	grid.Horizontal.Width = 0
	p.Add(grid)
	tools := r.results.used(r.names(), func(w row) bool { return w.tail })
	slices.Reverse(tools) // the first on top
	n := 0
	for _, w := range r.results.rows {
		if !w.tail || n == len(marks) {
			continue
		}
		if err := addSeries(p, r.series(w, tools, 0.22*float64(1-n)), w.name, n); err != nil {
			return nil, err
		}
		n++
	}
	if n == 0 || len(tools) == 0 {
		return nil, nil
	}
	p.NominalY(tools...)
	p.Y.Min, p.Y.Max = -0.5, float64(len(tools))
	p.X.Min, p.X.Max = p.X.Min/1.3, p.X.Max*1.3 // room for the marks at the ends
	canvas := vgsvg.New(18*vg.Centimeter, vg.Length(len(tools))*vg.Centimeter+3*vg.Centimeter)
	const margin = 4
	p.Draw(draw.Crop(draw.New(canvas), margin, -margin, margin, -margin))
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, err
	}
	fmt.Fprintf(&out, "<!-- %s -->\n", r.made)
	// The library names only its own font, which most who look at it don't have.
	return bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,sans-serif;")), nil
}

// series gives a row's points, moved by offset from the line of their tools, so that rows don't hide each other.
func (r report) series(w row, tools []string, offset float64) (s series) {
	for i, tool := range tools {
		c := r.results.cell(w.name, tool)
		if len(c.values) == 0 {
			continue
		}
		m := median(c.values)
		s.XYs = append(s.XYs, plotter.XY{X: m, Y: float64(i) + offset})
		s.XErrors = append(s.XErrors, struct{ Low, High float64 }{0, percentile(c.values, 99) - m})
	}
	return s
}

func addSeries(p *plot.Plot, s series, name string, n int) error {
	if len(s.XYs) == 0 {
		return nil
	}
	points, err := plotter.NewScatter(s)
	if err != nil {
		return err
	}
	lines, err := plotter.NewXErrorBars(s)
	if err != nil {
		return err
	}
	points.Shape, points.Color, points.Radius = marks[n].shape, marks[n].color, vg.Points(3)
	lines.Color, lines.CapWidth = marks[n].color, vg.Points(4)
	p.Add(lines, points)
	p.Legend.Add(name, points)
	return nil
}
