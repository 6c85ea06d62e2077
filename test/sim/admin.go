package sim

import (
	"context"

	"github.com/streamhouse/streamhouse/domain"
	"github.com/streamhouse/streamhouse/test/sim/history"
)

// createTopic makes a topic and notes it, without faults.
func (w *world) createTopic(name string, partitions int32) error {
	t, err := w.metadata.CreateTopic(context.Background(), domain.TopicSpec{Name: name, Partitions: partitions, Retention: w.retention(name)})
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	state := w.topics[name]
	if state == nil {
		state = new(topicState)
		w.topics[name] = state
	}
	state.topic, state.deleting = t, false
	state.incarnation++
	w.record(history.Event{Kind: history.Create, Topic: name, Incarnation: state.incarnation})
	return nil
}

// administer changes a topic at its time.
func (w *world) administer(a adminPlan) {
	p := w.newProcess("admin", false)
	for range a.step {
		p.step("wait")
	}
	name := w.plan.topics[a.topic].name
	if a.widen > 0 {
		if _, err := w.metadata.WidenTopic(context.Background(), w.topic(name).topic.ID, a.widen); err != nil {
			w.violate("widen topic: %v", err)
		}
	} else {
		w.recreate(p, name)
	}
	w.awaitHeal()
}

func (w *world) recreate(p *process, name string) {
	w.mu.Lock()
	state := w.topics[name]
	state.deleting = true
	state.deletions++
	old := state.topic
	w.record(history.Event{Kind: history.Delete, Topic: name})
	w.mu.Unlock()
	p.step("delete")
	if err := w.metadata.DeleteTopic(context.Background(), old.ID); err != nil {
		w.violate("delete topic: %v", err)
	}
	w.observe(p, history.Event{Kind: history.Deleted, Topic: name})
	for range 10 {
		p.step("wait")
	}
	if err := w.createTopic(name, old.Partitions); err != nil {
		w.violate("create topic again: %v", err)
	}
}
