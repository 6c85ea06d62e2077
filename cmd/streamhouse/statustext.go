package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// The widths that keep a status within 80 columns; what is longer is cut, and
// whole in --output json.
const (
	statusWidth  = 80
	addressWidth = 21
	groupWidth   = 10
	zoneWidth    = 8
	topicWidth   = 28
)

// printStatus shows a status within 80 columns.
func (a *app) printStatus(s statusJSON) error {
	fmt.Fprintln(a.stdout, agentsLine(s.Agents))
	if len(s.Agents) > 0 {
		if err := a.printAgentStatus(s.Agents); err != nil {
			return err
		}
	}
	fmt.Fprintln(a.stdout)
	w := a.table()
	fmt.Fprintln(w, "TOPIC\tPARTS\tRECORDS\tRECORDS/S\tSTORED\tBYTES/S")
	for _, t := range s.Topics {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", cut(t.Topic, topicWidth), t.Partitions,
			countText(t.Records), rateText(t.RecordRate, countText), sizeText(t.Bytes), rateText(t.ByteRate, sizeText))
	}
	return w.Flush()
}

// loopColumns are the loops of an agent that have a column.
var loopColumns = []string{"retention", "collection", "compaction", "sweep"}

func (a *app) printAgentStatus(agents []agentStatusJSON) error {
	w := a.table()
	fmt.Fprintln(w, "ADDRESS\tGROUP\tZONE\tUP\tSTATE\tCONNS\tBYTES/S")
	for _, g := range agents {
		fmt.Fprintf(w, "%s\t%s\t%s\t", cut(g.Address, addressWidth), cut(g.Group, groupWidth), cut(dash(g.Zone), zoneWidth))
		if st := g.Status; st == nil {
			fmt.Fprintf(w, "-\t%s\t-\t-\n", g.state())
		} else {
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", ageText(st.Uptime), g.state(), st.Connections, rateText(st.ByteRate, sizeText))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := a.printLoops(agents); err != nil {
		return err
	}
	for _, g := range agents {
		a.printTroubles(g)
	}
	return nil
}

// printLoops shows how long ago each loop of the agents that answered went
// through.
func (a *app) printLoops(agents []agentStatusJSON) error {
	w := a.table()
	head := "\nLAST PASS OF\t" + strings.ToUpper(strings.Join(loopColumns, "\t")) + "\n"
	for _, g := range agents {
		if g.Status != nil {
			fmt.Fprintf(w, "%s%s%s\n", head, cut(g.Address, addressWidth), g.Status.loopCells())
			head = ""
		}
	}
	return w.Flush()
}

// state is one word for what an agent is doing.
func (g agentStatusJSON) state() string {
	switch {
	case g.Draining:
		return "draining"
	case g.Status == nil:
		return "silent"
	case g.Status.NotReady != "":
		return "unready"
	default:
		return "serving"
	}
}

// loopCells are the ages of the loops' last passes; "!" marks one whose last
// pass failed.
func (s *agentAnswerJSON) loopCells() string {
	var b strings.Builder
	for _, name := range loopColumns {
		cell := "-"
		for _, l := range s.Loops {
			if l.Loop != name {
				continue
			}
			if l.Since != nil {
				cell = ageText(*l.Since) + " ago"
			}
			if l.Failure != "" {
				cell += " !"
			}
		}
		b.WriteString("\t" + cell)
	}
	return b.String()
}

// printTroubles says what is wrong with an agent.
func (a *app) printTroubles(g agentStatusJSON) {
	line := func(text string) { fmt.Fprint(a.stdout, wrapped(visible(text), statusWidth)) }
	if g.Error != "" {
		line(g.Address + ": " + g.Error)
		return
	}
	if g.Status.NotReady != "" {
		line(g.Address + ": not ready: " + g.Status.NotReady)
	}
	for _, l := range g.Status.Loops {
		if l.Failure != "" {
			line(g.Address + ": " + l.Loop + ": " + l.Failure)
		}
	}
}

// wrapped breaks text into lines of at most width columns where there are blanks;
// those after the first are indented.
func wrapped(text string, width int) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > width:
			b.WriteString("\n  ")
			column = 2
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String() + "\n"
}

// cut shortens what is escaped to width columns, with an ellipsis.
func cut(s string, width int) string {
	s = visible(s)
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:width-1]) + "…"
}

// ageText writes seconds for people, to two digits or so: 0s, 42s, 17m, 5h, 12d.
func ageText(seconds float64) string {
	d := time.Duration(max(seconds, 0) * float64(time.Second))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// countText writes a count for people: 950, 1,234, 12.3M, 4.5G.
func countText(n int64) string {
	switch {
	case n < 1e6:
		return grouped(n)
	case n < 1e9:
		return fmt.Sprintf("%.1fM", float64(n)/1e6)
	default:
		return fmt.Sprintf("%.1fG", float64(n)/1e9)
	}
}

// rateText writes a rate, "-" if it is not known.
func rateText(r *float64, text func(int64) string) string {
	if r == nil {
		return "-"
	}
	if *r > 0 && *r < 1 {
		return "<1"
	}
	return text(int64(*r + 0.5))
}
