//go:build linux

package main

import (
	"math"
	"slices"
)

// percentile gives the smallest of values that at least p of 100 of them don't exceed, the nearest rank; NaN: there are
// no values. It doesn't interpolate: each figure was measured.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

func median(values []float64) float64 { return percentile(values, 50) }
