package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

// shared is the one server of a test binary, if a test has asked for it.
var shared struct {
	mu     sync.Mutex
	asked  bool
	server *Server
	err    error
}

// Shared is a server for all tests of this binary, started by the first one that asks. Where there is no PostgreSQL the test is
// skipped, and under CI=true it fails. TestMain has to call [Close].
func Shared(t testing.TB) *Server {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.asked {
		shared.asked = true
		shared.server, shared.err = Start(context.Background())
	}
	Need(t, shared.err)
	return shared.server
}

// Need skips or fails a test that has got an error from [Start].
func Need(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, ErrMissing) && os.Getenv("CI") != "true":
		t.Skip("left out: the ledger on PostgreSQL:", err)
	default:
		t.Fatal(err)
	}
}

// Close ends the shared server.
func Close() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil {
		return nil
	}
	err := shared.server.Stop()
	shared.server, shared.err = nil, errors.New("the shared server was closed")
	return err
}

var schemas atomic.Int64

// NewSchema makes a schema and returns its name.
func (s *Server) NewSchema(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("ledger_%d", schemas.Add(1))
	s.Exec(t, "CREATE SCHEMA "+name)
	return name
}

// NewAddress is the address of a ledger that is not there yet, in a schema of its own.
func (s *Server) NewAddress(t testing.TB) string {
	t.Helper()
	return s.Address("search_path", s.NewSchema(t))
}

// Exec runs SQL as the owner.
func (s *Server) Exec(t testing.TB, script string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	c, err := pgx.Connect(ctx, s.Address())
	if err == nil {
		_, err = c.Exec(ctx, script)
		err = errors.Join(err, c.Close(ctx))
	}
	if err != nil {
		t.Fatal(err)
	}
}
