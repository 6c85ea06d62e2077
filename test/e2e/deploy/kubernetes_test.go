package deploy_test

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/streamhouse/streamhouse/test/e2e/deploy"
)

// object is what the test wants of any of the objects in the Kubernetes file.
type object struct {
	Kind       string
	Metadata   struct{ Name string }
	StringData map[string]string `yaml:"stringData"`
	Spec       struct {
		Template struct {
			Metadata struct{ Labels, Annotations map[string]string }
			Spec     struct {
				Grace      int `yaml:"terminationGracePeriodSeconds"`
				Containers []pod
			}
		}
		Selector yaml.Node
		Ports    []struct {
			Port       int
			TargetPort string `yaml:"targetPort"`
		}
	}
}

type pod struct {
	Args []string
	Env  []struct{ Name string }
	From []struct {
		Secret struct{ Name string } `yaml:"secretRef"`
	} `yaml:"envFrom"`
	Ports []struct {
		Name string
		Port int `yaml:"containerPort"`
	}
	Readiness, Liveness probe
}

type probe struct {
	Get struct{ Path, Port string } `yaml:"httpGet"`
}

// UnmarshalYAML reads the probes under the names that they have.
func (p *pod) UnmarshalYAML(n *yaml.Node) error {
	type plain pod
	probes := struct {
		Readiness probe `yaml:"readinessProbe"`
		Liveness  probe `yaml:"livenessProbe"`
	}{}
	err := errors.Join(n.Decode((*plain)(p)), n.Decode(&probes))
	p.Readiness, p.Liveness = probes.Readiness, probes.Liveness
	return err
}

func kubernetes(t *testing.T) map[string]object {
	t.Helper()
	objects := map[string]object{}
	decoder := yaml.NewDecoder(bytes.NewReader(deploy.Read(t, "kubernetes/streamhouse.yaml")))
	for {
		var o object
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}
		objects[o.Kind] = o
	}
}

func TestKubernetes_AgentsUnderstandWhatTheyAreToldAndAreFound(t *testing.T) {
	objects := kubernetes(t)
	secret, template := objects["Secret"], objects["Deployment"].Spec.Template
	if len(template.Spec.Containers) != 1 {
		t.Fatalf("a pod has %d containers", len(template.Spec.Containers))
	}
	c := template.Spec.Containers[0]
	if len(c.From) != 1 || c.From[0].Secret.Name != secret.Metadata.Name {
		t.Errorf("the environment is from %v, want the secret %s", c.From, secret.Metadata.Name)
	}
	args := strings.Join(c.Args, "\n")
	for _, e := range c.Env {
		args = strings.ReplaceAll(args, "$("+e.Name+")", "10.0.0.7") // all are addresses
	}
	if strings.Contains(args, "$(") {
		t.Errorf("the arguments name a variable that is not there: %s", args)
	}
	a := read(t, "a pod", strings.Split(args, "\n"), secret.StringData)
	a.hasTimeToDrain(time.Duration(template.Spec.Grace) * time.Second)
	ports := map[string]string{}
	for _, p := range c.Ports {
		ports[p.Name] = strconv.Itoa(p.Port)
	}
	if ports["grpc"] != a.port("listen") || ports["admin"] != a.port("admin") || a.port("advertise") != a.port("listen") {
		t.Errorf("the ports are %v, and the agent listens at %s and %s", ports, a.settings["listen"], a.settings["admin"])
	}
	if c.Readiness.Get.Path != "/readyz" || c.Readiness.Get.Port != "admin" || c.Liveness.Get.Path != "/healthz" || c.Liveness.Get.Port != "admin" {
		t.Errorf("the probes are %+v and %+v", c.Readiness, c.Liveness)
	}
	if got := template.Metadata.Annotations["prometheus.io/port"]; got != a.port("admin") {
		t.Errorf("Prometheus is sent to port %s", got)
	}
	var selector map[string]string
	service := objects["Service"].Spec
	if err := service.Selector.Decode(&selector); err != nil || len(selector) == 0 {
		t.Fatalf("the service selects %v: %v", selector, err)
	}
	for label, want := range selector {
		if template.Metadata.Labels[label] != want {
			t.Errorf("the service selects %s=%s, and pods have %v", label, want, template.Metadata.Labels)
		}
	}
	for _, p := range service.Ports {
		if ports[p.TargetPort] != strconv.Itoa(p.Port) {
			t.Errorf("the service sends port %d to %s, which is %s", p.Port, p.TargetPort, ports[p.TargetPort])
		}
	}
}
