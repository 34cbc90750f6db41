package cnitest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// Image is a container image with busybox and nothing else, made on the spot:
// a tar that is both an OCI layout, as containerd and podman import it, and
// what `docker load` takes. Its file /www/index.html is "ok". Without a command
// it stays, as a pod's sandbox must.
func Image(t testing.TB, name string) []byte {
	t.Helper()
	image, err := archive(name)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// archive puts the image together: blobs named by their digests, and the two
// indexes that say which is which.
func archive(name string) ([]byte, error) {
	layer, err := rootfs()
	if err != nil {
		return nil, err
	}
	a := files{}
	diff := a.blob(layer)
	config := a.blob(raw(Conf{
		"architecture": runtime.GOARCH, "os": "linux", "created": "1970-01-01T00:00:00Z",
		"config": Conf{"Env": []string{"PATH=/bin"}, "Cmd": []string{"sleep", "infinity"}},
		"rootfs": Conf{"type": "layers", "diff_ids": []string{diff.digest}},
	}))
	manifest := a.blob(raw(Conf{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": config.descriptor("config.v1+json"),
		"layers": []Conf{diff.descriptor("layer.v1.tar")},
	}))
	entry := manifest.descriptor("manifest.v1+json")
	entry["platform"] = Conf{"architecture": runtime.GOARCH, "os": "linux"}
	entry["annotations"] = Conf{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
	a["oci-layout"] = raw(Conf{"imageLayoutVersion": "1.0.0"})
	a["index.json"] = raw(Conf{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []Conf{entry}})
	a["manifest.json"] = raw([]Conf{{"Config": config.path(), "RepoTags": []string{name}, "Layers": []string{diff.path()}}})
	return a.tar()
}

// files are the files of an archive.
type files map[string][]byte

// A blob is a file that is named by its digest.
type blob struct {
	digest string
	size   int
}

func (a files) blob(data []byte) blob {
	b := blob{fmt.Sprintf("sha256:%x", sha256.Sum256(data)), len(data)}
	a[b.path()] = data
	return b
}

func (b blob) path() string { return "blobs/" + strings.Replace(b.digest, ":", "/", 1) }

func (b blob) descriptor(kind string) Conf {
	return Conf{"mediaType": "application/vnd.oci.image." + kind, "digest": b.digest, "size": b.size}
}

func (a files) tar() ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, data := range a {
		if err := put(w, tar.Header{Name: name, Mode: 0o644}, data); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
}

// raw is a value as JSON; all of ours can be.
func raw(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// rootfs is the root of a container with busybox.
func rootfs() ([]byte, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("%w: apt-get install busybox-static", err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(path, "--list").Output()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range []struct {
		name, data string
		mode       int64
	}{
		{"bin/busybox", string(program), 0o755},
		{"etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644},
		{"etc/group", "root:x:0:\n", 0o644},
		{"www/index.html", "ok\n", 0o644},
	} {
		if err := put(w, tar.Header{Name: f.name, Mode: f.mode}, []byte(f.data)); err != nil {
			return nil, err
		}
	}
	for dir, mode := range map[string]int64{"dev/": 0o755, "proc/": 0o755, "sys/": 0o755, "root/": 0o700, "tmp/": 0o1777} {
		if err := put(w, tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: mode}, nil); err != nil {
			return nil, err
		}
	}
	for a := range strings.FieldsSeq(string(applets)) {
		if a != "busybox" {
			if err := put(w, tar.Header{Name: "bin/" + a, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil); err != nil {
				return nil, err
			}
		}
	}
	return buf.Bytes(), w.Close()
}

func put(w *tar.Writer, h tar.Header, data []byte) error {
	h.Size = int64(len(data))
	if err := w.WriteHeader(&h); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}
