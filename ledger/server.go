package ledger

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// server is a ledger in PostgreSQL: the tables of one schema. Any number of machines may share it.
type server struct {
	config *pgx.ConnConfig
	shown  string // the address, as it may be shown
	log    *slog.Logger
	busy   time.Duration
	only   bool          // read
	inTurn chan struct{} // held by the writer of this process; others wait in line, first come first served

	schema string // where the tables are, once attached
	key    int64  // of the lock that writers of the ledger take, over all machines
	is     identity
	plain  sync.Once // for one warning
	writer *sql.DB   // one connection
	reader *sql.DB
}

// lockKey is the number of an advisory lock. Such locks are of one database each.
func (s *server) lockKey(what string) int64 {
	sum := sha256.Sum256([]byte("gpulease " + s.schema + " " + what))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// newServer reads the address and opens nothing yet.
func newServer(address string, o Options) (*server, error) {
	config, err := parse(address)
	if err != nil {
		return nil, err
	}
	s := &server{config: config, shown: Redact(address), log: o.Logger, busy: o.BusyTimeout, only: o.ReadOnly, inTurn: make(chan struct{}, 1)}
	if _, named := config.RuntimeParams["application_name"]; !named {
		config.RuntimeParams["application_name"] = "gpulease"
	}
	// A standby is read behind its time, and so never.
	config.ValidateConnect = func(ctx context.Context, c *pgconn.PgConn) error {
		if err := pgconn.ValidateConnectTargetSessionAttrsReadWrite(ctx, c); err != nil {
			return fmt.Errorf("%w (%w)", ErrUnwritable, err)
		}
		return nil
	}
	config.DialFunc = (&net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3}}).DialContext
	return s, nil
}

// pool is a pool of connections that are made when they are needed.
func (s *server) pool(most int) *sql.DB {
	db := stdlib.OpenDB(*s.config, stdlib.OptionAfterConnect(s.prepareConn))
	db.SetMaxOpenConns(most)
	db.SetMaxIdleConns(1) // a server has few to give
	return db
}

// prepareConn sets what a connection needs, whatever the defaults of the role and of the database are.
func (s *server) prepareConn(ctx context.Context, c *pgx.Conn) error {
	if _, encrypted := c.PgConn().Conn().(*tls.Conn); !encrypted && !local(c.PgConn().Conn().RemoteAddr()) {
		s.plain.Do(func() {
			s.log.Warn("the connection to the ledger's server is not encrypted: put sslmode=verify-full into its address", "ledger", s.shown)
		})
	}
	// Later changes of the role's search path lead nowhere else. A session that stalls in a transaction, with its process suspended or its machine gone, is ended, so that others can write.
	_, err := c.Exec(ctx, `SELECT set_config('idle_in_transaction_session_timeout', $1::bigint::text, false), set_config('tcp_keepalives_idle', '10', false),
		set_config('tcp_keepalives_interval', '5', false), set_config('tcp_keepalives_count', '3', false),
		set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false),
		set_config('search_path', $2, false)`, s.stalls().Milliseconds(), pgx.Identifier{s.schema}.Sanitize())
	return err
}

// stalls is how long a transaction may do nothing: less than others wait, and enough for a process that the machine lets wait.
func (s *server) stalls() time.Duration { return max(s.busy/2, time.Second) }

func local(a net.Addr) bool {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.IP.IsLoopback()
	}
	return true
}

func (s *server) close() error {
	if s.reader == nil {
		return nil
	}
	return errors.Join(s.reader.Close(), s.writer.Close())
}

// check has nothing to do: PostgreSQL gives no look at its structures to those who only use it.
func (s *server) check(context.Context, session) error { return nil }
