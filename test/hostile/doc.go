// Package hostile attacks hosts from where an attacker may be: a container with
// CAP_NET_RAW, a neighbour on a LAN that a bridge of the host is plugged into,
// a stranger on the underlay. What it measured it prints in lines that begin
// with "hostile:".
package hostile
