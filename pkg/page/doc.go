// Package page draws a network for a person: its hosts and what each measures
// of the way to every other as an SVG picture, and this host as an HTML page
// around it. Neither needs anything from elsewhere: no script, no font, no style
// sheet; both are light or dark as the browser is.
//
// The picture has one of three forms. Up to graphMost hosts it is a graph; of
// more hosts a matrix, or, where no other host has told its row, a tile for each.
//
//	m, err := page.Measure(ctx, conflist.Load("/etc/cni/net.d/10-ovsnet.conflist"))
//	m.WriteSVG(os.Stdout)
//
// To mend anything is out of its scope, and so is history: metrics are for that.
package page
