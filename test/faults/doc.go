// Package faults breaks things while the built plugins work, and looks whether
// anything is left: errors and SIGKILLs at single system calls, an Open vSwitch
// that dies, stalls or talks nonsense, hosts prepared by a stranger, and many
// calls at once. What a host has is compared before and after by [take].
//
// Each suite prints its counts on a line "faults: NAME: N passed, N failed".
// Unless OVSGRE_FAULTS=full, the suites that go through system calls take a
// sample of them, always the same. OVSGRE_SOAK is the number of attachments of
// the soak.
package faults
