// Command suite is "go test" for make test: it runs go test with the arguments it
// gets, says as it goes how far all of make test is, prints what failed and
// nothing of what passed, and writes everything to a log. Several may run at once.
//
//	suite DIR begin            make DIR, where all of them note what ran
//	suite DIR run ARG...       go test -json ARG...
//	suite DIR sum              print how many tests passed, failed, were skipped
//
// What programs print behind "NAME: ", as hostile: and faults:, are figures to be
// read by a person: they go to standard output.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

func main() { os.Exit(call(os.Args[1:])) }

func call(args []string) int {
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: suite DIR begin|run|sum [ARG...]")
		return 2
	}
	d, err := dir(args[0]), error(nil)
	code := 0
	switch args[1] {
	case "begin":
		err = d.begin()
	case "run":
		code, err = run(d, args[2:])
	case "sum":
		code, err = d.sum()
	default:
		err = fmt.Errorf("unknown command %q", args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "suite:", err)
		return 2
	}
	return code
}

// run runs go test and returns what it ends with. An interrupt goes to go test
// as well, which cleans up.
func run(d dir, args []string) (int, error) {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM)
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	log, err := os.OpenFile(d.file("log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	r := newReader(d, log)
	readErr := r.read(out)
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), readErr
	}
	return 0, errors.Join(err, readErr)
}
