package k8s

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"ovs-gre-cni/deploy/image/archive"
)

// The images that the cluster uses, made on the spot.
const (
	podImage   = "localhost/k8s-test:latest"
	pauseImage = "localhost/k8s-pause:latest"
)

// images writes the images of pods and of their sandboxes, both with busybox
// and nothing else, into dir.
func images(t testing.TB, dir string) []string {
	t.Helper()
	return []string{
		writeImage(t, dir, archive.Image{Ref: podImage, Cmd: []string{"/bin/sh", "-c", "exec sleep 1000000"}}),
		// A sandbox reaps what its containers leave.
		writeImage(t, dir, archive.Image{Ref: pauseImage, Entrypoint: []string{"/bin/sh", "-c", "trap 'exit 0' TERM INT; sleep 1000000 & wait"}}),
	}
}

func writeImage(t testing.TB, dir string, img archive.Image) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	img.Arch, img.Env = runtime.GOARCH, []string{"PATH=/bin"}
	img.Files = []archive.File{
		{Path: "bin/busybox", From: busybox},
		{Path: "etc/passwd", Data: "root:x:0:0:root:/root:/bin/sh\n", Mode: 0o644},
		{Path: "tmp", Dir: true}, {Path: "www", Dir: true},
	}
	for a := range strings.FieldsSeq(string(applets)) {
		if a != "busybox" {
			img.Files = append(img.Files, archive.File{Path: "bin/" + a, Link: "busybox"})
		}
	}
	file, err := os.CreateTemp(dir, "image-*.tar")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := archive.Write(file, img); err != nil {
		t.Fatal(err)
	}
	return filepath.Clean(file.Name())
}
