package lease_test

import (
	"flag"
	"os"
	"testing"
)

// Most tests here wait for a loop that ticks, so many can share a processor; and what they
// write need not survive a power cut, so where there is a file system in memory they use that.
func TestMain(m *testing.M) {
	flag.Parse()
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "test.parallel" })
	if !set {
		side := "8"
		if raceEnabled {
			side = "4"
		}
		_ = flag.Set("test.parallel", side)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if dir, err := os.MkdirTemp("/dev/shm", "gpulease-lease"); err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		_ = os.Setenv("TMPDIR", dir)
	}
	return m.Run()
}
