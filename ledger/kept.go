package ledger

import (
	"context"
	"database/sql"
	"sync"
)

// kept are the statements of a pool that SQLite has parsed already: anew for each call, that is a third of the work.
type kept struct {
	mu    sync.Mutex
	stmts map[string]*sql.Stmt
}

// keptMost bounds how many texts are kept; the ledger has fewer.
const keptMost = 200

// inTx is inTx with statements that are kept.
func (k *kept) inTx(ctx context.Context, pool *sql.DB, opts *sql.TxOptions, do func(session) error) error {
	var s *parsed
	err := inTx(ctx, pool, opts, func(tx *sql.Tx) error {
		s = &parsed{Tx: tx, kept: k}
		return do(s)
	})
	if err == nil && len(s.fresh) > 0 {
		k.keep(ctx, pool, s.fresh) // only now: in the transaction it would wait for another connection
	}
	return err
}

func (k *kept) find(query string) *sql.Stmt {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stmts[query]
}

// keep parses texts for the calls to come. Where it fails, they are parsed when they are used.
func (k *kept) keep(ctx context.Context, pool *sql.DB, queries []string) {
	for _, q := range queries {
		if k.find(q) != nil {
			continue
		}
		stmt, err := pool.PrepareContext(ctx, q)
		if err != nil {
			return
		}
		k.mu.Lock()
		if k.stmts == nil {
			k.stmts = map[string]*sql.Stmt{}
		}
		if k.stmts[q] != nil || len(k.stmts) >= keptMost {
			_ = stmt.Close()
		} else {
			k.stmts[q] = stmt
		}
		k.mu.Unlock()
	}
}

// close ends the statements. The pool has to be closed after it.
func (k *kept) close() (err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.stmts {
		if e := s.Close(); err == nil {
			err = e
		}
	}
	k.stmts = nil
	return err
}

// parsed is a transaction that runs statements as they are kept.
type parsed struct {
	*sql.Tx
	kept  *kept
	fresh []string // texts that were not kept
}

func (p *parsed) stmt(ctx context.Context, query string) *sql.Stmt {
	if s := p.kept.find(query); s != nil {
		return p.StmtContext(ctx, s)
	}
	p.fresh = append(p.fresh, query)
	return nil
}

func (p *parsed) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if s := p.stmt(ctx, query); s != nil {
		return s.ExecContext(ctx, args...)
	}
	return p.Tx.ExecContext(ctx, query, args...)
}

func (p *parsed) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if s := p.stmt(ctx, query); s != nil {
		return s.QueryContext(ctx, args...)
	}
	return p.Tx.QueryContext(ctx, query, args...)
}

func (p *parsed) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if s := p.stmt(ctx, query); s != nil {
		return s.QueryRowContext(ctx, args...)
	}
	return p.Tx.QueryRowContext(ctx, query, args...)
}
