// Package archive writes a container image into a tar file without a builder,
// a registry or a base image: one layer, from files that the caller has.
//
// The tar is an OCI image layout and a docker-archive at once, so that ctr,
// crictl's runtimes, nerdctl, podman and docker load all take it. The same
// files make the same bytes: every time stamp is zero, every list is sorted.
package archive

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

// File is one entry of an image's root file system.
type File struct {
	Path string // in the image, such as "bin/busybox"
	From string // the file on this machine that has the content
	Data string // the content, where From is ""
	Link string // where Path is a symbolic link to; it has no content then
	Mode int64  // permission bits; 0 is 0755
	Dir  bool   // an empty directory
}

// Image is what Write writes.
type Image struct {
	Ref        string // the reference that it is loaded as, with its tag
	Arch       string // GOARCH
	Files      []File
	Entrypoint []string
	Cmd        []string
	Env        []string
	User       string            // "" is root
	Labels     map[string]string // org.opencontainers.image.* and the like
}

// Media types of the OCI image specification.
const (
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
)

type object = map[string]any

// blob is a piece of the layout, named by the hash of its content.
type blob struct{ data []byte }

func (b blob) hash() string {
	sum := sha256.Sum256(b.data)
	return hex.EncodeToString(sum[:])
}

func (b blob) digest() string { return "sha256:" + b.hash() }
func (b blob) path() string   { return "blobs/sha256/" + b.hash() }

func (b blob) descriptor(mediaType string) object {
	return object{"mediaType": mediaType, "digest": b.digest(), "size": len(b.data)}
}

// Write writes the image.
func Write(w io.Writer, img Image) error {
	data, err := layer(img.Files)
	if err != nil {
		return err
	}
	root := blob{data}
	config := encode(object{
		"architecture": img.Arch, "os": "linux", "created": "1970-01-01T00:00:00Z",
		"config": object{"Entrypoint": img.Entrypoint, "Cmd": img.Cmd, "Env": img.Env, "User": img.User, "Labels": img.Labels},
		"rootfs": object{"type": "layers", "diff_ids": []string{root.digest()}},
	})
	manifest := encode(object{
		"schemaVersion": 2, "mediaType": mediaManifest,
		"config": config.descriptor(mediaConfig),
		"layers": []object{root.descriptor(mediaLayer)},
	})
	entry := manifest.descriptor(mediaManifest)
	entry["platform"] = object{"architecture": img.Arch, "os": "linux"}
	// Of these two names, containerd reads the first, podman the second.
	entry["annotations"] = object{"io.containerd.image.name": img.Ref, "org.opencontainers.image.ref.name": img.Ref}
	index := encode(object{"schemaVersion": 2, "mediaType": mediaIndex, "manifests": []object{entry}})
	docker := encode([]object{{"Config": config.path(), "RepoTags": []string{img.Ref}, "Layers": []string{root.path()}}})

	out := tar.NewWriter(w)
	for _, f := range []File{
		{Path: "oci-layout", Data: `{"imageLayoutVersion":"1.0.0"}`, Mode: 0o644},
		{Path: "index.json", Data: string(index.data), Mode: 0o644},
		{Path: "manifest.json", Data: string(docker.data), Mode: 0o644},
		{Path: config.path(), Data: string(config.data), Mode: 0o644},
		{Path: manifest.path(), Data: string(manifest.data), Mode: 0o644},
		{Path: root.path(), Data: string(root.data), Mode: 0o644},
	} {
		if err := put(out, f); err != nil {
			return err
		}
	}
	return out.Close()
}

// layer is the tar of the root file system, with every directory above a file.
func layer(files []File) ([]byte, error) {
	all := map[string]File{}
	for _, f := range files {
		f.Path = strings.Trim(path.Clean("/"+f.Path), "/")
		if _, twice := all[f.Path]; twice {
			return nil, fmt.Errorf("image: %s is there twice", f.Path)
		}
		all[f.Path] = f
	}
	for _, f := range files {
		for dir := path.Dir(strings.Trim(path.Clean("/"+f.Path), "/")); dir != "."; dir = path.Dir(dir) {
			if _, known := all[dir]; !known {
				all[dir] = File{Path: dir, Dir: true}
			}
		}
	}
	sorted := make([]File, 0, len(all))
	for _, f := range all {
		sorted = append(sorted, f)
	}
	slices.SortFunc(sorted, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })

	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range sorted {
		if err := put(w, f); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
}

// put writes one entry. Its time is zero, its owner root.
func put(w *tar.Writer, f File) error {
	h := tar.Header{Name: f.Path, Mode: cmp.Or(f.Mode, 0o755), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
	var data []byte
	switch {
	case f.Dir:
		h.Typeflag, h.Name = tar.TypeDir, f.Path+"/"
	case f.Link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
	case f.From != "":
		var err error
		if data, err = os.ReadFile(f.From); err != nil {
			return err
		}
	default:
		data = []byte(f.Data)
	}
	h.Size = int64(len(data))
	if err := w.WriteHeader(&h); err != nil {
		return fmt.Errorf("image: %s: %w", f.Path, err)
	}
	_, err := w.Write(data)
	return err
}

// encode is JSON, whose keys encoding/json sorts.
func encode(v any) blob {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and maps of them
	}
	return blob{data}
}
