// Command report turns the output of `go test -json` on its standard input
// into a line for each package and the whole output of each test that failed,
// and appends what it counted to a file. It exits with 1 if anything failed.
//
//	go test -json ./... | report -name unit -tally bin/tally
//
// With -sum it reads such a file instead and prints "N passed, N failed".
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("report", flag.ContinueOnError)
	flags.SetOutput(stderr)
	name := flags.String("name", "tests", "what the tests are called in the tally")
	tally := flags.String("tally", "", "the file that counts are appended to")
	sum := flags.Bool("sum", false, "print the sums of the tally and fail if anything has failed, or nothing has passed")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *sum {
		return printSum(*tally, stdout, stderr)
	}
	c, err := read(stdin, stdout)
	if err != nil {
		fmt.Fprintf(stderr, "report: %v\n", err)
		c.failed++
	}
	fmt.Fprintf(stdout, "%s: %d passed, %d failed\n", *name, c.passed, c.failed)
	if *tally != "" {
		if err := appendTally(*tally, *name, c); err != nil {
			fmt.Fprintf(stderr, "report: %v\n", err)
			return 1
		}
	}
	if c.failed > 0 || c.passed == 0 {
		return 1
	}
	return 0
}
