// Command streamhouse is the StreamHouse command line tool: it makes topics,
// sends lines into them and reads them back, looks into segments and measures.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(mainExit()) }

func mainExit() int {
	// A closed pipe shows as an error of the write, which each command handles:
	// consume ends quietly, produce still stores what it accepted.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks for an orderly end. A second one kills.
	context.AfterFunc(ctx, stop)
	return run(ctx, invocation{
		args: os.Args[1:], environ: os.Environ(),
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
	})
}
