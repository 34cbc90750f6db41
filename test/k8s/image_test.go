package k8s

import (
	"os"
	"testing"

	"ovs-gre-cni/deploy/image/archive"
	"ovs-gre-cni/test/cnitest"
)

// The images that the cluster uses, made on the spot.
const (
	podImage   = "localhost/k8s-test:latest"
	pauseImage = "localhost/k8s-pause:latest"
)

// images writes the images of pods and of their sandboxes into dir.
func images(t testing.TB, dir string) (tars []string) {
	t.Helper()
	for _, ref := range []string{podImage, pauseImage} {
		file := temporary(t, dir)
		if _, err := file.Write(cnitest.Image(t, ref)); err != nil {
			t.Fatal(err)
		}
		tars = append(tars, file.Name())
	}
	return tars
}

// writeImage writes an image into a file in dir, whose name it returns.
func writeImage(t testing.TB, dir string, img archive.Image) string {
	t.Helper()
	file := temporary(t, dir)
	if err := archive.Write(file, img); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}

// temporary is a new file in dir, closed when the test ends.
func temporary(t testing.TB, dir string) *os.File {
	t.Helper()
	file, err := os.CreateTemp(dir, "image-*.tar")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}
