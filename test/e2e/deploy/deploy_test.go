package deploy_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/streamhouse/streamhouse/test/e2e/deploy"
)

var folder string // of the command; empty until it is made

func TestMain(m *testing.M) {
	code := m.Run()
	if folder != "" {
		_ = os.RemoveAll(folder) // of the system's temporary files
	}
	os.Exit(code)
}

// build makes the command, once.
var build = sync.OnceValues(func() (binary string, err error) {
	if folder, err = os.MkdirTemp("", "streamhouse-deploy-"); err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", folder, "../../../cmd/streamhouse").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return filepath.Join(folder, "streamhouse"), nil
})

// agent is what the command makes of a command line and an environment.
type agent struct {
	*testing.T
	what     string
	settings map[string]string
}

// read lets the command itself read them: it refuses what it does not know.
func read(t *testing.T, what string, command []string, environment map[string]string) agent {
	t.Helper()
	if len(command) == 0 || command[0] != "serve" {
		t.Fatalf("%s runs %q, want serve", what, command)
	}
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, append(slices.Clone(command), "--print-config")...)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	for name, value := range environment {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v: %s", what, err, said.String())
	}
	a := agent{T: t, what: what, settings: map[string]string{}}
	// What was not given is a comment, which tells the default.
	for _, m := range regexp.MustCompile(`(?m)^# ([a-z-]+): .*\(default ([^ )]+)\)$`).FindAllSubmatch(out.Bytes(), -1) {
		a.settings[string(m[1])] = string(m[2])
	}
	if err := yaml.Unmarshal(out.Bytes(), &a.settings); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a agent) port(setting string) string {
	a.Helper()
	_, port, err := net.SplitHostPort(a.settings[setting])
	if err != nil {
		a.Errorf("%s: %s is %q", a.what, setting, a.settings[setting])
	}
	return port
}

// hasTimeToDrain demands that what stops the agent waits longer than it drains.
func (a agent) hasTimeToDrain(given time.Duration) {
	a.Helper()
	drain, err := time.ParseDuration(a.settings["drain-timeout"])
	if err != nil || given <= drain {
		a.Errorf("%s is killed %s after it was asked to end, and drains for %q", a.what, given, a.settings["drain-timeout"])
	}
}

// composed are the agents of the compose file.
func composed(t *testing.T, c deploy.Compose) map[string]agent {
	t.Helper()
	agents := map[string]agent{}
	for name, s := range c.Services {
		if s.Image == "streamhouse:local" {
			agents[name] = read(t, name, s.Command, streamhouse(s.Environment))
		}
	}
	if len(agents) < 2 {
		t.Fatalf("the compose file has %d agents", len(agents))
	}
	return agents
}

// streamhouse are the variables that the command reads; the SDK reads the others.
func streamhouse(environment map[string]string) map[string]string {
	own := map[string]string{}
	for name, value := range environment {
		if strings.HasPrefix(name, "STREAMHOUSE_") {
			own[name] = value
		}
	}
	return own
}

func TestCompose_AgentsUnderstandWhatTheyAreTold(t *testing.T) {
	c := deploy.ReadCompose(t)
	for name, a := range composed(t, c) {
		s := c.Services[name]
		grace, err := time.ParseDuration(s.StopGracePeriod)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		a.hasTimeToDrain(grace)
		// Where it says that it is, it is published.
		if want := a.settings["advertise"] + ":" + a.port("listen"); !slices.Contains(s.Ports, want) {
			t.Errorf("%s publishes %q, and advertises %s", name, s.Ports, want)
		}
	}
}

// Variables that choose images are exported in shells in which the command is
// used, and it refuses a STREAMHOUSE_ variable that is no setting of its.
func TestCompose_VariablesAreNotTakenForSettings(t *testing.T) {
	for _, m := range regexp.MustCompile(`\$\{([A-Z_]+)`).FindAllSubmatch(deploy.Read(t, "docker-compose.yaml"), -1) {
		if bytes.HasPrefix(m[1], []byte("STREAMHOUSE_")) {
			t.Errorf("the variable %s would be taken for a setting", m[1])
		}
	}
}

func TestCompose_NamesOnlyWhatIsThere(t *testing.T) {
	c := deploy.ReadCompose(t)
	published := map[string]string{}
	for name, s := range c.Services {
		for _, other := range dependencies(t, s) {
			if _, there := c.Services[other]; !there {
				t.Errorf("%s depends on %s, which is no service", name, other)
			}
		}
		for _, p := range s.Ports {
			outside := p[:strings.LastIndex(p, ":")]
			if by, taken := published[outside]; taken || !strings.HasPrefix(outside, "127.0.0.1:") {
				t.Errorf("%s publishes %s, which is not on loopback or taken by %q", name, outside, by)
			}
			published[outside] = name
		}
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if !strings.HasPrefix(source, ".") {
				if _, there := c.Volumes[source]; !there {
					t.Errorf("%s mounts %s, which is no volume", name, source)
				}
			} else if _, err := os.Stat(deploy.Path(source)); err != nil {
				t.Errorf("%s mounts %s: %v", name, source, err)
			}
		}
		for key := range s.Rest {
			if !slices.Contains([]string{"restart", "healthcheck", "entrypoint"}, key) {
				t.Errorf("%s has the key %s, which is unknown to this test", name, key)
			}
		}
	}
}

// dependencies are a list of names, or names with conditions.
func dependencies(t *testing.T, s deploy.Service) []string {
	t.Helper()
	var list []string
	var conditions map[string]struct{ Condition string }
	switch s.DependsOn.Kind {
	case yaml.SequenceNode:
		if err := s.DependsOn.Decode(&list); err != nil {
			t.Fatal(err)
		}
	case yaml.MappingNode:
		if err := s.DependsOn.Decode(&conditions); err != nil {
			t.Fatal(err)
		}
		for name := range conditions {
			list = append(list, name)
		}
	}
	return list
}

func TestPrometheus_ScrapesTheAdminListenerOfEveryAgent(t *testing.T) {
	var prometheus struct {
		ScrapeConfigs []struct {
			MetricsPath   string                       `yaml:"metrics_path"`
			StaticConfigs []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal(deploy.Read(t, "prometheus/prometheus.yaml"), &prometheus); err != nil {
		t.Fatal(err)
	}
	var scraped, want []string
	for _, job := range prometheus.ScrapeConfigs {
		if job.MetricsPath != "" {
			t.Errorf("a job asks for %s, and agents have /metrics", job.MetricsPath)
		}
		for _, s := range job.StaticConfigs {
			scraped = append(scraped, s.Targets...)
		}
	}
	for name, a := range composed(t, deploy.ReadCompose(t)) {
		want = append(want, net.JoinHostPort(name, a.port("admin")))
	}
	slices.Sort(scraped)
	if slices.Sort(want); !slices.Equal(scraped, want) {
		t.Errorf("it scrapes %q, want %q", scraped, want)
	}
}

func TestGrafana_FindsItsDashboardAndPrometheus(t *testing.T) {
	c := deploy.ReadCompose(t)
	var sources struct {
		Datasources []struct{ UID, URL string }
	}
	if err := yaml.Unmarshal(deploy.Read(t, "grafana/provisioning/datasources/prometheus.yaml"), &sources); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, s := range sources.Datasources {
		known[s.UID] = true
		host, _, err := net.SplitHostPort(strings.TrimPrefix(s.URL, "http://"))
		if _, there := c.Services[host]; err != nil || !there {
			t.Errorf("the source %s is at %s, which is no service", s.UID, s.URL)
		}
	}
	used := regexp.MustCompile(`"uid":\s*"(\w+)"\s*}`).FindAllSubmatch(deploy.Read(t, "grafana/streamhouse.json"), -1)
	if len(used) == 0 {
		t.Error("the dashboard names no source")
	}
	for _, m := range used {
		if !known[string(m[1])] {
			t.Errorf("the dashboard asks the source %s, which is not provisioned", m[1])
		}
	}
	var dashboards struct {
		Providers []struct{ Options struct{ Path string } }
	}
	if err := yaml.Unmarshal(deploy.Read(t, "grafana/provisioning/dashboards/streamhouse.yaml"), &dashboards); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboards.Providers {
		if want := "./grafana/streamhouse.json:" + p.Options.Path + "/streamhouse.json:ro"; !slices.Contains(c.Services["grafana"].Volumes, want) {
			t.Errorf("dashboards are looked for in %s, where the compose file puts none", p.Options.Path)
		}
	}
}

func TestDockerfile_ServesWhereItSays(t *testing.T) {
	lines := map[string]string{}
	for line := range strings.Lines(string(deploy.Read(t, "Dockerfile"))) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		lines[word] = rest
	}
	var command []string
	if err := json.Unmarshal([]byte(lines["CMD"]), &command); err != nil {
		t.Fatal(err)
	}
	a := read(t, "the image", command, nil)
	if want := a.port("listen") + " " + a.port("admin"); lines["EXPOSE"] != want {
		t.Errorf("it exposes %s, and listens at %s", lines["EXPOSE"], want)
	}
	// Kubernetes lets only a number pass for runAsNonRoot.
	if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(lines["USER"]) {
		t.Errorf("it runs as %q", lines["USER"])
	}
}

func TestSystemd_UnitStartsAnAgentAndWaitsForItsEnd(t *testing.T) {
	unit := map[string]string{}
	for scan := bufio.NewScanner(bytes.NewReader(deploy.Read(t, "streamhouse.service"))); scan.Scan(); {
		if key, value, found := strings.Cut(scan.Text(), "="); found {
			unit[key] = value
		}
	}
	words := strings.Fields(unit["ExecStart"])
	for i, word := range words {
		if word == "--config" { // it is the user's
			words[i+1] = filepath.Join(t.TempDir(), "streamhouse.yaml")
			if err := os.WriteFile(words[i+1], nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(words) < 2 {
		t.Fatalf("it starts %q", unit["ExecStart"])
	}
	grace, err := time.ParseDuration(unit["TimeoutStopSec"] + "s")
	if err != nil {
		t.Fatal(err)
	}
	read(t, "the unit", words[1:], nil).hasTimeToDrain(grace)
	// The log's folder, where none is given, is in the working directory.
	if unit["WorkingDirectory"] != "/var/lib/"+unit["StateDirectory"] {
		t.Errorf("it works in %s, and may write to %s", unit["WorkingDirectory"], unit["StateDirectory"])
	}
}
