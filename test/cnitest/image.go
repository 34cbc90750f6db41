package cnitest

import (
	"bytes"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"ovs-gre-cni/deploy/image/archive"
)

// Image is a container image with busybox and nothing else, made on the spot:
// a tar that is both an OCI layout, as containerd and podman import it, and
// what `docker load` takes. Its file /www/index.html is "ok". Without a command
// it stays, as a pod's sandbox must.
func Image(t testing.TB, name string) []byte {
	t.Helper()
	var buf bytes.Buffer
	err := archive.Write(&buf, archive.Image{
		Ref: name, Arch: runtime.GOARCH, Env: []string{"PATH=/bin"}, Cmd: []string{"sleep", "infinity"}, Files: Busybox(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Busybox is the root of a container with this machine's busybox.
func Busybox(t testing.TB) []archive.File {
	t.Helper()
	program, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatalf("%v: apt-get install busybox-static", err)
	}
	applets, err := exec.Command(program, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	files := []archive.File{
		{Path: "bin/busybox", From: program, Mode: 0o755},
		{Path: "etc/passwd", Data: "root:x:0:0:root:/root:/bin/sh\n", Mode: 0o644},
		{Path: "etc/group", Data: "root:x:0:\n", Mode: 0o644},
		{Path: "www/index.html", Data: "ok\n", Mode: 0o644},
		{Path: "dev", Dir: true}, {Path: "proc", Dir: true}, {Path: "sys", Dir: true},
		{Path: "root", Dir: true, Mode: 0o700}, {Path: "tmp", Dir: true, Mode: 0o1777},
	}
	for a := range strings.FieldsSeq(string(applets)) {
		if a != "busybox" {
			files = append(files, archive.File{Path: "bin/" + a, Link: "busybox"})
		}
	}
	return files
}
