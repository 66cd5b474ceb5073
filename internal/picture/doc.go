// Package picture draws: the topology of a stack ([SVG], [Dot], [HTML]), and where the time of a run went ([Waterfall]).
//
// It owns one layout, made for what a stack consists of, and the ways to write it down. Pictures are complete in themselves: they load
// nothing, and need no program but one that shows SVG. It asks nothing of anybody: it draws what it is given, names of unknown origin
// among it, which can contain anything.
package picture
