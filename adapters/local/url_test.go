package local_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/streamhouse/streamhouse/adapters/local"
	"github.com/streamhouse/streamhouse/domain"
)

func TestOpenMetadataAndSegments_OpenWhatOpenMakes(t *testing.T) {
	dir := t.TempDir()
	whole := open(t, dir)
	if err := whole.Segments().Put(t.Context(), "segments/00/a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	metadata, err := local.OpenMetadata(t.Context(), "sqlite:"+filepath.Join(dir, "metadata.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer metadata.Close()
	segments, err := local.OpenSegments(t.Context(), "file:"+dir)
	if err != nil {
		t.Fatal(err)
	}
	defer segments.(io.Closer).Close()
	if metadata.ClusterID() != whole.Metadata().ClusterID() {
		t.Error("another metadata store")
	}
	if _, err := segments.Stat(t.Context(), "segments/00/a"); err != nil {
		t.Error(err)
	}
}

func TestOpenMetadataAndSegments_MakeTheirFolders(t *testing.T) {
	t.Chdir(t.TempDir())
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{
		"sqlite:one/two/meta.db", "sqlite:plain.db", "sqlite:" + wd + "/three/meta data.db", "sqlite://" + wd + "/four/m.db",
		"sqlite:five/m.db?unsafe_synchronous=NORMAL", "sqlite:six/m.db?unsafe_synchronous=OFF", "sqlite:seven/m.db?",
	} {
		s, err := local.OpenMetadata(t.Context(), url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, url := range []string{"file:seg/ments", "file:.", "file:" + wd + "/other", "file:x?unsafe_no_fsync=true", "file:x?unsafe_no_fsync=false"} {
		s, err := local.OpenSegments(t.Context(), url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if err := s.(io.Closer).Close(); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{"one/two/meta.db", "plain.db", "three/meta data.db", "four/m.db", "seg/ments", "other"} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenMetadataAndSegments_SayWhatTheyKnow(t *testing.T) {
	t.Chdir(t.TempDir())
	metadata := func(url string) error { _, err := local.OpenMetadata(t.Context(), url); return err }
	segments := func(url string) error { _, err := local.OpenSegments(t.Context(), url); return err }
	cases := []struct {
		open func(string) error
		url  string
		says []string
	}{
		{metadata, "", []string{"sqlite:FILE"}},
		{metadata, "data/metadata.db", []string{"sqlite:FILE"}},
		{metadata, "postgres://user:secret@host/db", []string{"sqlite:FILE", "postgres"}},
		{metadata, "SQLITE:x.db", []string{"sqlite:FILE"}},
		{metadata, "file:x.db", []string{"sqlite:FILE"}},
		{metadata, "sqlite:", []string{"without a path"}},
		{metadata, "sqlite:?unsafe_synchronous=NORMAL", []string{"without a path"}},
		{metadata, "sqlite://host/x.db", []string{"another host"}},
		{metadata, "sqlite:x.db?synchronous=OFF", []string{`"synchronous"`, "unsafe_synchronous"}},
		{metadata, "sqlite:x.db?unsafe_synchronous=FULL", []string{`"FULL"`, "NORMAL or OFF"}},
		{metadata, "sqlite:x.db?unsafe_synchronous", []string{"NORMAL or OFF"}},
		{metadata, "sqlite:x.db?unsafe_synchronous=OFF&unsafe_synchronous=OFF", []string{"NORMAL or OFF"}},
		{metadata, "sqlite:x.db?a=%zz", []string{"parameters"}},
		{metadata, "sqlite:x.db?b=1&unsafe_synchronous=no&a=2", []string{`"a"`, `"b"`, `"no"`}},
		{segments, "s3://key:secret@bucket/x", []string{"file:DIR", "s3"}},
		{segments, "./data", []string{"file:DIR"}},
		{segments, "file:", []string{"without a path"}},
		{segments, "file:x?unsafe_no_fsync=yes", []string{`"yes"`, "true or false"}},
		{segments, "file:x?fsync=false", []string{`"fsync"`, "unsafe_no_fsync"}},
	}
	for _, c := range cases {
		err := c.open(c.url)
		var fault *domain.ConfigError
		if !errors.As(err, &fault) {
			t.Errorf("%q: error is %v, want a *domain.ConfigError", c.url, err)
			continue
		}
		for _, says := range c.says {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%q: error is %q, want it to say %q", c.url, err, says)
			}
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error gives the secret away: %v", c.url, err)
		}
	}
	if entries, err := os.ReadDir("."); err != nil || len(entries) != 0 {
		t.Errorf("refused URLs left %v, %v", entries, err)
	}
}
