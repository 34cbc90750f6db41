// Package page draws a network as an SVG picture, with its hosts and the measurements
// between them, and this host as an HTML page around the picture. Both contain no script and
// load no font or style sheet; both are light or dark as the browser is.
//
// The picture is a graph of up to 6 hosts. With more hosts it is a matrix, or, if only this
// host's measurements are known, a tile for each peer.
//
//	m, err := page.Measure(ctx, conflist.Load("/etc/cni/net.d/10-ovsnet.conflist"))
//	m.WriteSVG(os.Stdout)
//
// Changes to the host are out of scope, and so is history, for which there are metrics.
package page
