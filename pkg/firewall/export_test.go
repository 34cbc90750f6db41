package firewall

// NewNetns is for tests outside of the package.
var NewNetns = newNetns
