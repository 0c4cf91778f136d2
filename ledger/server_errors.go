package ledger

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Codes of PostgreSQL that mean more than their class says.
const (
	forbidden     = "42501"
	noTable       = "42P01"
	noSchema      = "3F000"
	tableThere    = "42P07"
	functionThere = "42723"
)

// kindOnServer is which of our errors one from PostgreSQL or on the way to it is, or nil.
func kindOnServer(err error) error {
	var said *pgconn.PgError
	var failed *pgconn.ConnectError
	var onWay net.Error
	switch {
	case errors.As(err, &said):
		return kindOfCode(said.Code)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded): // the caller's
		return nil
	case errors.As(err, &failed), errors.As(err, &onWay), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, pgconn.ErrConnClosed), errors.Is(err, driver.ErrBadConn):
		return ErrAway
	}
	return nil
}

func kindOfCode(code string) error {
	switch code {
	case "23505":
		return ErrDuplicate
	case "22003": // a sum that does not fit
		return ErrInvalid
	case "55P03", "57014", "40P01", "40001":
		return ErrBusy
	case "25006", forbidden:
		return ErrUnwritable
	case "53100":
		return ErrFull
	case "XX001", "XX002":
		return ErrCorrupt
	case noTable, noSchema:
		return ErrReplaced
	case "25P03", "25P04": // we were suspended in a transaction, and the server has ended the session
		return ErrAway
	case "3D000": // no such database
		return ErrAway
	}
	switch {
	case strings.HasPrefix(code, "23"):
		return ErrInvalid
	case strings.HasPrefix(code, "08"), strings.HasPrefix(code, "28"), strings.HasPrefix(code, "53"), strings.HasPrefix(code, "57P"):
		return ErrAway
	}
	return nil
}

// unfit reports whether a query fails because tables are not as ours are.
func unfit(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code != forbidden && (strings.HasPrefix(e.Code, "42") || strings.HasPrefix(e.Code, "22"))
}

// inTheWay reports whether something has a name that we need.
func inTheWay(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == tableThere || e.Code == functionThere)
}

// goneTables adds what it means that the tables of a ledger that was open are gone.
func goneTables(err error) error {
	var e *pgconn.PgError
	if errors.As(err, &e) && (e.Code == noTable || e.Code == noSchema) {
		return fmt.Errorf("%w (%w)", ErrReplaced, err)
	}
	return err
}
