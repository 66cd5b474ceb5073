package controller

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWhatAnnotationsAskFor(t *testing.T) {
	flags := settings{min: 3, max: 50, batch: 5, ttl: 10 * time.Minute}
	type m = map[string]string
	for _, c := range []struct {
		name       string
		node       m
		namespaces []m
		want       settings
		bad        []string
	}{
		{name: "nothing", want: flags},
		{name: "a node, less and more", node: m{annotationMin: "0", annotationMax: "110", annotationBatch: "1", annotationTTL: "90s"},
			want: settings{0, 110, 1, 90 * time.Second}},
		{name: "namespaces, of which the largest counts", namespaces: []m{{annotationMin: "7", annotationTTL: "1h"}, {annotationMin: "9", annotationBatch: "8", annotationTTL: "1m"}},
			want: settings{9, 50, 8, time.Hour}},
		{name: "a namespace that asks for less", namespaces: []m{{annotationMin: "1"}}, want: flags},
		{name: "a namespace above its node", node: m{annotationMin: "1"}, namespaces: []m{{annotationMin: "2"}}, want: settings{2, 50, 5, flags.ttl}},
		{name: "more than there may be", node: m{annotationMax: "2"}, namespaces: []m{{annotationMin: "60"}}, want: settings{2, 2, 5, flags.ttl}},
		{name: "bad ones beside a good one", node: m{annotationMin: "many", annotationMax: "5000", annotationBatch: "0", annotationTTL: "10"},
			namespaces: []m{{annotationMin: "4"}}, want: settings{4, 50, 5, flags.ttl}, bad: []string{annotationBatch, annotationMax, annotationMin, annotationTTL}},
		{name: "a maximum on a namespace", namespaces: []m{{annotationMax: "60"}}, want: flags, bad: []string{annotationMax}},
	} {
		own, bad := ask(c.node, true)
		var theirs []asked
		for _, n := range c.namespaces {
			a, b := ask(n, false)
			theirs = append(theirs, a)
			maps.Copy(bad, b)
		}
		if got := flags.join(own, theirs...); got != c.want || !slices.Equal(slices.Sorted(maps.Keys(bad)), c.bad) {
			t.Errorf("%s: %+v, bad %v; want %+v, bad %v", c.name, got, bad, c.want, c.bad)
		}
	}
}

func FuzzAnnotations(f *testing.F) {
	f.Add("3", "50", "5", "10m")
	f.Add("-1", "+7", "0x10", "1e9h")
	f.Fuzz(func(t *testing.T, least, most, batch, ttl string) {
		given := map[string]string{annotationMin: least, annotationMax: most, annotationBatch: batch, annotationTTL: ttl}
		for _, node := range []bool{true, false} {
			a, bad := ask(given, node)
			flags := settings{min: 3, max: 50, batch: 5, ttl: time.Minute}
			s := flags.join(a)
			if !node {
				s = flags.join(asked{}, a)
			}
			if s.min < 0 || s.min > s.max || s.max > mostSubports || s.batch < 1 || s.batch > mostBatch || s.ttl < leastTTL {
				t.Errorf("%v: %+v", given, s)
			}
			for key, should := range bad {
				if _, ok := given[key]; !ok || strings.TrimSpace(should) == "" {
					t.Errorf("%v: %q should be %q", given, key, should)
				}
			}
			understood := 0
			for _, there := range []bool{a.min != nil, a.max != nil, a.batch != nil, a.ttl != nil} {
				if there {
					understood++
				}
			}
			if understood+len(bad) != len(given) {
				t.Errorf("%v: %d are understood, and told of are %v", given, understood, bad)
			}
		}
	})
}
