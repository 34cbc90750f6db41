package archive

import (
	"io/fs"
	"os"
	"path/filepath"
)

// Dir lists the files and links below a directory as those of an image.
func Dir(root string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(root, func(at string, e fs.DirEntry, err error) error {
		if err != nil || at == root {
			return err
		}
		name, err := filepath.Rel(root, at)
		if err != nil {
			return err
		}
		f := File{Path: name}
		switch {
		case e.IsDir():
			f.Dir = true
		case e.Type() == fs.ModeSymlink:
			f.Link, err = os.Readlink(at)
		default:
			info, infoErr := e.Info()
			if infoErr != nil {
				return infoErr
			}
			f.From, f.Mode = at, int64(info.Mode().Perm())
		}
		files = append(files, f)
		return err
	})
	return files, err
}
