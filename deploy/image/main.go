// Command image writes the container image of the agent and the plugins into a
// tar file: what is in a directory, on top of nothing. deploy/image/Dockerfile
// is the same for those who have a builder.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"ovs-gre-cni/deploy/image/archive"
)

func main() {
	root := flag.String("root", "bin/image", "directory that becomes the image's root")
	ref := flag.String("ref", "localhost/ovs-gre:devel", "reference of the image")
	arch := flag.String("arch", runtime.GOARCH, "architecture of the programs in it, as Go names it")
	out := flag.String("o", "bin/ovs-gre-image.tar", "file to write")
	flag.Parse()
	if err := run(*root, *ref, *arch, *out); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(root, ref, arch, out string) error {
	files, err := archive.Dir(root)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, "ovs-gre-agent")); err != nil {
		return err
	}
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	return errors.Join(archive.Write(file, archive.Image{
		Ref: ref, Arch: arch, Files: files, Entrypoint: []string{"/ovs-gre-agent"},
	}), file.Close())
}
