package servers

import (
	"errors"
	"os"
	"path/filepath"
)

// moduleRoot is the nearest folder upwards from the working one with a go.mod:
// go test runs a test binary in the folder of its package.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod in the working folder or above")
		}
		dir = filepath.Dir(dir)
	}
}
