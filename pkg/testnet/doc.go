// Package testnet is a lab for tests: several hosts on one machine, joined by
// an underlay network, each with an Open vSwitch of its own.
//
// A host is a set of Linux namespaces (pid, mount, network) held by one small
// process. None of them has a name outside the lab, so any number of labs run
// on one machine and never meet. Inside, a host looks like a host: its /run,
// /etc/cni, /opt/cni, /var/lib/cni and the directories of Open vSwitch are its
// own, so programs run unchanged with their default paths, and so does its boot
// id. What is on disk survives [Host.Reboot]; what is in the kernel or in /run
// does not.
//
// A holder lives as long as the pipe to its standard input is open. When the
// process that made the lab ends, however it ends, the kernel closes the pipe,
// the holders exit, and with each of them go its namespaces: all processes,
// links, rules and mounts in it. There is nothing to clean up and no handler
// that has to run.
//
// Where the kernel has no openvswitch module, Open vSwitch runs its userspace
// datapath, [DatapathNetdev]. It can only tunnel over a link that it owns: the
// lab then puts the host's eth0 into a bridge br-phy, which carries the host's
// addresses in its place. [Host.UnderlayLink] is the link that does.
//
// The lab does not enable forwarding, add routes between the hosts'
// container networks or change any rule: that is the work of what is tested.
// It needs root, and hides neither /sys, /dev nor /tmp of the machine: a file
// under /sys/class/net speaks of the machine's links, not of the host's.
package testnet
