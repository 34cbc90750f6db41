package archive

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func write(t *testing.T, img Image) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := Write(&buf, img); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// entries are the files of a tar, and its directories and links as "".
func entries(t *testing.T, data []byte) map[string]string {
	t.Helper()
	all := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() != 0 || h.Uid != 0 {
			t.Errorf("%s has a time or an owner: %v, %d", h.Name, h.ModTime, h.Uid)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = string(text)
	}
}

// TestWrite follows an image from its index to its files.
func TestWrite(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"bin", "var"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "bin", "tool"), []byte("run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/run", filepath.Join(root, "var", "run")); err != nil {
		t.Fatal(err)
	}
	files, err := Dir(root)
	if err != nil {
		t.Fatal(err)
	}
	img := Image{Ref: "localhost/a:1", Arch: "amd64", Files: append(files, File{Path: "etc/deep/file", Data: "text"})}
	all := entries(t, write(t, img))

	type descriptor struct{ Digest string }
	var index struct{ Manifests []descriptor }
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	var docker []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	decode := func(text string, into any) {
		t.Helper()
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err, text)
		}
	}
	blob := func(d descriptor) string { return "blobs/sha256/" + d.Digest[len("sha256:"):] }
	decode(all["index.json"], &index)
	decode(all[blob(index.Manifests[0])], &manifest)
	decode(all["manifest.json"], &docker)
	if docker[0].RepoTags[0] != "localhost/a:1" || docker[0].Config != blob(manifest.Config) || docker[0].Layers[0] != blob(manifest.Layers[0]) {
		t.Errorf("the two lists differ: %v, %v", docker, manifest)
	}
	layer := entries(t, []byte(all[blob(manifest.Layers[0])]))
	for _, name := range []string{"bin/", "bin/tool", "var/run", "etc/", "etc/deep/", "etc/deep/file"} {
		if _, ok := layer[name]; !ok {
			t.Errorf("no %s in the image: %v", name, layer)
		}
	}
	if layer["bin/tool"] != "run" || layer["etc/deep/file"] != "text" {
		t.Errorf("files: %v", layer)
	}

	// The same files, said in another order, are the same image.
	again := img
	again.Files = append([]File{img.Files[len(img.Files)-1]}, img.Files[:len(img.Files)-1]...)
	if !bytes.Equal(write(t, img), write(t, again)) {
		t.Error("two images of the same files differ")
	}
}

func TestTwice(t *testing.T) {
	if err := Write(io.Discard, Image{Files: []File{{Path: "a"}, {Path: "/a"}}}); err == nil {
		t.Error("a file that is there twice is no error")
	}
}
