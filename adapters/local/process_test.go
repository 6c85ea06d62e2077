package local_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/streamhouse/streamhouse/adapters/local"
	"github.com/streamhouse/streamhouse/domain"
)

const childVariable = "STREAMHOUSE_LOCAL_CHILD"

// child opens the folder as a second process, adds a topic and an object, and
// says which cluster it is in.
func child(dir string) {
	ctx := context.Background()
	s, err := local.Open(ctx, dir)
	if err != nil {
		panic(err)
	}
	_, err = s.Metadata().CreateTopic(ctx, domain.TopicSpec{Name: fmt.Sprintf("topic-%d", os.Getpid()), Partitions: 1})
	err = errors.Join(err, s.Segments().Put(ctx, fmt.Sprintf("segments/00/%d", os.Getpid()), []byte("x")))
	if err != nil {
		panic(err)
	}
	fmt.Println(s.Metadata().ClusterID())
	if err := s.Close(); err != nil {
		panic(err)
	}
}

// TestOpen_ByManyProcessesAtOnceMakesOneStore starts processes that all find no
// folder.
func TestOpen_ByManyProcessesAtOnceMakesOneStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const processes = 4
	var (
		cmds []*exec.Cmd
		outs []*bufio.Scanner
	)
	for range processes {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), childVariable+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err := errors.Join(err, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		cmds, outs = append(cmds, cmd), append(outs, bufio.NewScanner(out))
	}
	clusters := map[string]bool{}
	for i, cmd := range cmds {
		outs[i].Scan()
		clusters[outs[i].Text()] = true
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v", i, err)
		}
	}
	s := open(t, dir)
	topics, topicsErr := s.Metadata().ListTopics(t.Context())
	objects, objectsErr := s.Segments().List(t.Context(), "", 100)
	if err := errors.Join(topicsErr, objectsErr); err != nil {
		t.Fatal(err)
	}
	if len(clusters) != 1 || !clusters[s.Metadata().ClusterID().String()] || len(topics) != processes || len(objects) != processes {
		t.Errorf("%d clusters, %d topics and %d objects of %d processes", len(clusters), len(topics), len(objects), processes)
	}
}
