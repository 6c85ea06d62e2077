package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/app/topics"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/settings"
	"github.com/streamhouse/streamhouse/cmd/streamhouse/wiring"
	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/ports"
)

const (
	// probeTimeout is how long one agent may take to say how it is doing, and
	// probes how many are asked at once.
	probeTimeout = 3 * time.Second
	probes       = 16
	// maxInterval is the longest time between the two looks of a status.
	maxInterval = time.Hour
)

// statusJSON is what status --output json prints.
type statusJSON struct {
	// Interval is the time between the two looks that rates are of, 0 if there was one.
	Interval float64           `json:"interval_seconds"`
	Agents   []agentStatusJSON `json:"agents"`
	Topics   []topicJSON       `json:"topics"`
}

// agentStatusJSON is an agent of the list, and what it says itself if it
// answers.
type agentStatusJSON struct {
	agentJSON
	// Error is why it did not say how it is doing; then Status is null.
	Error  string           `json:"error,omitempty"`
	Status *agentAnswerJSON `json:"status"`
}

type agentAnswerJSON struct {
	Uptime      float64    `json:"uptime_seconds"`
	NotReady    string     `json:"not_ready,omitempty"`
	Connections int        `json:"connections"`
	Streams     int        `json:"produce_streams"`
	HeldBytes   int64      `json:"held_bytes"`
	Batches     int64      `json:"batches"`
	BatchBytes  int64      `json:"batch_bytes"`
	Refused     int64      `json:"refused_batches"`
	ByteRate    *float64   `json:"batch_bytes_per_second"`
	Loops       []loopJSON `json:"loops"`
}

type loopJSON struct {
	Loop    string   `json:"loop"`
	Since   *float64 `json:"seconds_since_success"`
	Failure string   `json:"error,omitempty"`
}

type topicJSON struct {
	Topic      string `json:"topic"`
	Partitions int32  `json:"partitions"`
	Records    int64  `json:"records"`
	Bytes      int64  `json:"bytes"`
	// The rates are null if they are not known: after one look only, for a topic
	// that is new, and for the bytes of one from which something was removed between the looks.
	RecordRate *float64 `json:"records_per_second"`
	ByteRate   *float64 `json:"bytes_per_second"`
}

func (a *app) statusCommand() *cobra.Command {
	var interval string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the agents and how they are doing, and the topics with their rates",
		Long: "Looks twice, --interval apart, and shows the agents that are alive, how long ago each of their\n" +
			"loops of upkeep went through, and how much is in each topic and comes in. Bytes are as stored.\n" +
			"An agent with tokens says how it is doing to who has the scope admin for all topics.",
		Example: "  streamhouse status\n  streamhouse status --agents 10.0.0.7:7070 --interval 10s --output json",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&interval, "interval", "2s", "time between the two looks that rates are of; 0s looks once and shows none")
	settings.AddFlags(cmd.Flags(), settings.Stores, settings.Agency, settings.Output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		s, err := a.settings(cmd)
		if err != nil {
			return err
		}
		between, err := settings.ParseDuration(interval)
		if err != nil || between < 0 || between > maxInterval {
			return usagef("--interval is %.60q: want 0s to %s, such as 2s", interval, maxInterval)
		}
		cfg := wiringConfig(s)
		cfg.Existing = true
		w := &watch{}
		system, err := a.open(cmd.Context(), cfg, &w.lister, &w.probe, &w.topics)
		if err != nil {
			return err
		}
		defer closing(cmd.Context(), system, &err)
		status, err := w.status(cmd.Context(), between)
		if err != nil {
			return err
		}
		if s.JSON {
			return writeJSON(a.stdout, status)
		}
		return a.printStatus(status)
	}
	return cmd
}

// watch looks at a log and its agents.
type watch struct {
	lister wiring.AgentLister
	probe  wiring.AgentProbe
	topics *topics.Topics
}

// look is what was there at one moment.
type look struct {
	agents  []ports.Agent
	answers []answer // of the agents
	topics  []topicLook
}

type answer struct {
	ports.AgentStatus
	at  time.Time
	err error
}

type topicLook struct {
	topics.Description
	at time.Time
}

// status looks once, and if there is time between looks once more.
func (w *watch) status(ctx context.Context, between time.Duration) (statusJSON, error) {
	first, err := w.look(ctx)
	if err != nil || between == 0 {
		return newStatus(nil, first, 0), err
	}
	timer := time.NewTimer(between)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return statusJSON{}, context.Cause(ctx)
	}
	second, err := w.look(ctx)
	return newStatus(first, second, between), err
}

func (w *watch) look(ctx context.Context) (*look, error) {
	agents, err := w.lister.Agents(ctx, "")
	if err != nil {
		return nil, err
	}
	described, err := w.describe(ctx)
	if err != nil {
		return nil, err
	}
	return &look{agents: agents, answers: w.ask(ctx, agents), topics: described}, nil
}

// ask asks all agents, a few at a time. One that does not answer has an error.
func (w *watch) ask(ctx context.Context, agents []ports.Agent) []answer {
	answers := make([]answer, len(agents))
	slots := make(chan struct{}, probes) // one for each agent that is being asked
	var asking sync.WaitGroup
	for i := range agents {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			answers[i].AgentStatus, answers[i].err = w.probe(ctx, agents[i].Address)
			answers[i].at = time.Now()
		})
	}
	asking.Wait()
	return answers
}

// describe describes all topics. One that is deleted meanwhile is left out.
func (w *watch) describe(ctx context.Context) ([]topicLook, error) {
	list, err := w.topics.List(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]topicLook, 0, len(list))
	for _, topic := range list {
		d, err := w.topics.Describe(ctx, topic.Name)
		switch {
		case errors.Is(err, domain.ErrTopicNotFound):
			continue
		case err != nil:
			return nil, err
		}
		all = append(all, topicLook{d, time.Now()})
	}
	return all, nil
}

// newStatus is what now says, with rates since before, which may be nil.
func newStatus(before, now *look, between time.Duration) statusJSON {
	s := statusJSON{Interval: between.Seconds(), Agents: []agentStatusJSON{}, Topics: []topicJSON{}}
	if now == nil {
		return s
	}
	answered := map[ports.AgentID]answer{}
	described := map[domain.TopicID]topicLook{}
	if before != nil {
		for i, g := range before.agents {
			answered[g.ID] = before.answers[i]
		}
		for _, t := range before.topics {
			described[t.ID] = t
		}
	}
	for i, g := range newAgents(now.agents) {
		was, asked := answered[now.agents[i].ID]
		s.Agents = append(s.Agents, newAgentStatus(g, now.answers[i], was, asked))
	}
	for _, t := range now.topics {
		was, known := described[t.ID]
		s.Topics = append(s.Topics, newTopicStatus(t, was, known))
	}
	return s
}

func newAgentStatus(g agentJSON, now, was answer, asked bool) agentStatusJSON {
	s := agentStatusJSON{agentJSON: g}
	if now.err != nil {
		s.Error = now.err.Error()
		return s
	}
	s.Status = &agentAnswerJSON{
		Uptime: now.Uptime.Seconds(), NotReady: now.NotReady, Connections: now.Connections, Streams: now.Streams, HeldBytes: now.HeldBytes,
		Batches: now.Batches, BatchBytes: now.BatchBytes, Refused: now.Refused, Loops: []loopJSON{},
	}
	if asked && was.err == nil && now.BatchBytes >= was.BatchBytes {
		s.Status.ByteRate = perSecond(now.BatchBytes-was.BatchBytes, now.at.Sub(was.at))
	}
	for _, l := range now.Loops {
		loop := loopJSON{Loop: l.Name, Failure: l.Failure}
		if l.Passed {
			loop.Since = new(l.SinceSuccess.Seconds())
		}
		s.Status.Loops = append(s.Status.Loops, loop)
	}
	return s
}

// newTopicStatus sums up a topic. Removal does not lower high watermarks, so the
// rate of records is of what came in; the bytes tell that only while nothing goes.
func newTopicStatus(now, was topicLook, known bool) topicJSON {
	t := topicJSON{Topic: now.Name, Partitions: now.Partitions}
	end, start := sums(now)
	for _, s := range now.States {
		t.Bytes += s.Bytes
	}
	t.Records = end - start
	if !known {
		return t
	}
	var bytesBefore int64
	for _, s := range was.States {
		bytesBefore += s.Bytes
	}
	endBefore, startBefore := sums(was)
	t.RecordRate = perSecond(end-endBefore, now.at.Sub(was.at))
	if start == startBefore && t.Bytes >= bytesBefore {
		t.ByteRate = perSecond(t.Bytes-bytesBefore, now.at.Sub(was.at))
	}
	return t
}

// sums adds up the high watermarks and the log starts of all partitions.
func sums(t topicLook) (end, start int64) {
	for _, s := range t.States {
		end, start = end+int64(s.HighWatermark), start+int64(s.LogStart)
	}
	return end, start
}

// perSecond is the rate of n things in d, nil if there was no time.
func perSecond(n int64, d time.Duration) *float64 {
	if d <= 0 {
		return nil
	}
	return new(float64(n) / d.Seconds())
}

// agentsLine counts the agents.
func agentsLine(agents []agentStatusJSON) string {
	var draining, silent int
	for _, g := range agents {
		switch {
		case g.Error != "":
			silent++
		case g.Draining:
			draining++
		}
	}
	n := int64(len(agents))
	if n == 0 {
		return "no agents"
	}
	line := fmt.Sprintf("%d %s", n, plural(n, "agent"))
	if draining > 0 {
		line += fmt.Sprintf(", %d draining", draining)
	}
	if silent > 0 {
		line += fmt.Sprintf(", %d silent", silent)
	}
	return line
}
