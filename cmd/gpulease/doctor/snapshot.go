package doctor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/gpulease/gpulease/ledger"
)

// Copy is a ledger as it was at one moment, in a file of its own: opening the
// ledger itself may migrate it and takes its lock. On a server it is the ledger
// itself, opened for reading only.
type Copy struct {
	*ledger.DB
	Schema int // of the ledger that was copied
	dir    string
}

// CopyLedger copies the ledger at path and opens the copy. The ledger is read
// only; writers go on meanwhile. It fails with fs.ErrNotExist where there is no
// ledger, and with the errors of [ledger.Open].
func CopyLedger(ctx context.Context, path string) (_ *Copy, err error) {
	if ledger.OnServer(path) {
		db, err := ledger.Open(ctx, path, ledger.Options{ReadOnly: true})
		if err != nil {
			return nil, err
		}
		return &Copy{DB: db, Schema: ledger.SchemaVersion}, nil
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("copy the ledger: %w", err)
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("copy the ledger: %w", err)
	}
	c := &Copy{}
	if c.dir, err = os.MkdirTemp("", "gpulease-ledger-"); err != nil {
		return nil, fmt.Errorf("copy the ledger: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(c.dir))
		}
	}()
	to := filepath.Join(c.dir, "ledger.db")
	if c.Schema, err = snapshot(ctx, path, to); err != nil {
		return nil, fmt.Errorf("copy ledger %s: %w", path, err)
	}
	if c.DB, err = ledger.Open(ctx, to, ledger.Options{}); err != nil {
		return nil, fmt.Errorf("open a copy of ledger %s: %w", path, err)
	}
	return c, nil
}

// Close removes the copy.
func (c *Copy) Close() error {
	var err error
	if c.DB != nil {
		err = c.DB.Close()
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

// snapshot writes one consistent state of a SQLite database to a new file.
func snapshot(ctx context.Context, from, to string) (schema int, err error) {
	q := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(5000)"}}
	if _, err := os.Stat(from + "-wal"); errors.Is(err, fs.ErrNotExist) {
		// Nobody has it open. Without this, reading would leave SQLite's two
		// other files beside it.
		q.Set("immutable", "1")
	}
	p := filepath.ToSlash(from)
	if !strings.HasPrefix(p, "/") {
		p = "/" + p // a drive letter
	}
	db, err := sql.Open("sqlite", "file://"+(&url.URL{Path: p}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return 0, err
	}
	defer db.Close()
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&schema); err != nil {
		return 0, fmt.Errorf("read the schema version: %w", err)
	}
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		return 0, fmt.Errorf("read it whole: %w", err)
	}
	return schema, nil
}
