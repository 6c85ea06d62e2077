// Command build builds the S3 server of the tests, if it is not there yet, and
// prints where it is. The first test that wants the server would build it too, in its own time.
package main

import (
	"fmt"
	"os"

	"github.com/streamhouse/streamhouse/test/e2e/servers"
)

func main() {
	path, err := servers.BuildS3()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(path)
}
