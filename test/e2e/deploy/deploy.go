// Package deploy reads the files of the folder deploy for the tests that hold
// them true.
package deploy

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Compose is what the tests want of deploy/docker-compose.yaml.
type Compose struct {
	Services map[string]Service
	Volumes  map[string]any
}

// Service is one container of the compose file, with what it inherits.
type Service struct {
	Image           string
	Command         []string
	Environment     map[string]string
	Ports           []string
	Volumes         []string
	StopGracePeriod string         `yaml:"stop_grace_period"`
	DependsOn       yaml.Node      `yaml:"depends_on"`
	Rest            map[string]any `yaml:",inline"`
}

// ReadCompose reads the compose file.
func ReadCompose(tb testing.TB) Compose {
	tb.Helper()
	var c Compose
	if err := yaml.Unmarshal(Read(tb, "docker-compose.yaml"), &c); err != nil {
		tb.Fatal(err)
	}
	return c
}

// Read reads a file of the folder; its path is relative to it.
func Read(tb testing.TB, path string) []byte {
	tb.Helper()
	content, err := os.ReadFile(Path(path))
	if err != nil {
		tb.Fatal(err)
	}
	return content
}

// Path is where a file of the folder is.
func Path(path string) string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..", "..", "deploy", filepath.FromSlash(path))
}
