package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/streamhouse/streamhouse/cmd/streamhouse/recordio"
)

func (a *app) versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show which build this is",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := readBuild()
			switch output {
			case "json":
				return a.print(b.appendJSON(nil))
			case "text":
				return a.print(b.appendText(nil))
			}
			return usagef("--output is %.60q: want text or json", output)
		},
	}
	cmd.Flags().StringVar(&output, "output", "text", "print `FORMAT`: text or json")
	return cmd
}

// What the Makefile says of the commit, by the linker. Go stamps a binary itself,
// but not from every kind of checkout, and not if it is told not to.
var stampedVersion, stampedRevision, stampedTime, stampedModified string

// build is what the binary knows of itself.
type build struct {
	version, revision, time, goVersion string
	modified                           bool
}

func readBuild() build {
	b := build{version: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.goVersion = info.GoVersion
	if info.Main.Version != "" {
		b.version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.revision = s.Value
		case "vcs.time":
			b.time = s.Value
		case "vcs.modified":
			b.modified = s.Value == "true"
		}
	}
	return b.orStamped()
}

// orStamped fills in what Go does not know.
func (b build) orStamped() build {
	if b.revision == "" && stampedRevision != "" {
		b.version, b.revision, b.time, b.modified = stampedVersion, stampedRevision, stampedTime, stampedModified == "true"
	}
	return b
}

func (b build) appendText(dst []byte) []byte {
	dst = fmt.Appendf(dst, "streamhouse %s", b.version)
	if b.revision != "" {
		dst = fmt.Appendf(dst, " (%.12s of %s", b.revision, b.time)
		if b.modified {
			dst = append(dst, ", modified"...)
		}
		dst = append(dst, ')')
	}
	return fmt.Appendf(dst, " %s\n", b.goVersion)
}

func (b build) appendJSON(dst []byte) []byte {
	for _, member := range []struct{ name, value string }{
		{`{"version":`, b.version}, {`,"revision":`, b.revision}, {`,"time":`, b.time}, {`,"go":`, b.goVersion},
	} {
		dst = recordio.AppendString(append(dst, member.name...), member.value)
	}
	return fmt.Appendf(dst, `,"modified":%t}`+"\n", b.modified)
}
