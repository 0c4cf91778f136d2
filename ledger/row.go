package ledger

import (
	"crypto/sha256"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/gpulease/gpulease/lease"
)

// millis is a time as it is stored.
type millis struct{ t *time.Time }

// Value is unix milliseconds, 0 for the zero time.
func (m millis) Value() (driver.Value, error) { return toMillis(*m.t), nil }

// Scan reads unix milliseconds.
func (m millis) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("a time is stored as %T, not as an integer", v)
	}
	*m.t = fromMillis(n)
	return nil
}

func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

// column ties a column to the field that it holds; field can be written to and read from the database as it is.
type column struct {
	name  string
	field any
}

// columns are the columns of a lease, in no order that matters. The digests are made from the names: a column may be added
// if its zero value means "as before", and none may be renamed.
func columns(l *lease.Lease) []column {
	return []column{
		{"id", &l.ID},
		{"version", &l.Version},
		{"state", &l.State},
		{"reason", &l.Reason},
		{"detail", &l.Detail},
		{"principal", &l.Principal},
		{"purpose", &l.Purpose},
		{"idempotency_key", &l.IdempotencyKey},
		{"fingerprint", &l.Fingerprint},
		{"policy_hash", &l.PolicyHash},
		{"policy_origin", &l.PolicyOrigin},
		{"account", &l.Account},
		{"home", &l.Home},
		{"asked_region", &l.AskedRegion},
		{"results", &l.Results},
		{"results_dir", &l.ResultsDir},
		{"type", &l.Type},
		{"region", &l.Region},
		{"image_family", &l.ImageFamily},
		{"gpus", &l.GPUs},
		{"price", &l.Price},
		{"reserved", &l.Reserved},
		{"cost", &l.Cost},
		{"ttl_ns", &l.TTL},
		{"boot_ns", &l.BootAllowance},
		{"stop_ns", &l.StopAllowance},
		{"name", &l.Name},
		{"key_name", &l.KeyName},
		{"instance_id", &l.InstanceID},
		{"addr", &l.Addr},
		{"host_key", &l.HostKey},
		{"next_host_key", &l.NextHostKey},
		{"host_key_from", &l.HostKeyFrom},
		{"created_at", millis{&l.CreatedAt}},
		{"decide_by", millis{&l.DecideBy}},
		{"approved_at", millis{&l.ApprovedAt}},
		{"approved_by", &l.ApprovedBy},
		{"reserved_at", millis{&l.ReservedAt}},
		{"launch_sent_at", millis{&l.LaunchSentAt}},
		{"seen_at", millis{&l.SeenAt}},
		{"missing_since", millis{&l.MissingSince}},
		{"missing", &l.Missing},
		{"billing_from", millis{&l.BillingFrom}},
		{"ready_at", millis{&l.ReadyAt}},
		{"deadline", millis{&l.Deadline}},
		{"hard_stop", millis{&l.HardStop}},
		{"idle_since", millis{&l.IdleSince}},
		{"gpu_watched_ns", &l.GPUWatched},
		{"gpu_busy_ns", &l.GPUBusy},
		{"stop_at", millis{&l.StopAt}},
		{"rescued_at", millis{&l.RescuedAt}},
		{"rescue", &l.Rescue},
		{"terminate_at", millis{&l.TerminateAt}},
		{"gone_at", millis{&l.GoneAt}},
		{"ended_at", millis{&l.EndedAt}},
	}
}

// The statements over whole leases.
var (
	leaseColumns = names(", ", "%s")
	insertLease  = "INSERT INTO leases (" + leaseColumns + ") VALUES (" + names(", ", "?") + ")"
	updateLease  = "UPDATE leases SET " + names(", ", "%s = ?") + " WHERE id = ? AND version = ?"
	selectLease  = "SELECT " + leaseColumns + " FROM leases "
)

func names(between, each string) string {
	var parts []string
	for _, c := range columns(&lease.Lease{}) {
		parts = append(parts, strings.ReplaceAll(each, "%s", c.name))
	}
	return strings.Join(parts, between)
}

func fields(l *lease.Lease) []any {
	cols := columns(l)
	out := make([]any, len(cols))
	for i, c := range cols {
		out[i] = c.field
	}
	return out
}

// stored is l as it will be read back.
func stored(l lease.Lease) lease.Lease {
	for _, c := range columns(&l) {
		switch f := c.field.(type) {
		case millis:
			*f.t = fromMillis(toMillis(*f.t))
		case *string:
			*f = text(*f)
		}
	}
	return l
}

// text is s as every database can store it.
func text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// digest identifies the whole content of a lease: SHA-256 over its columns that are not zero, as JSON.
func digest(l lease.Lease) (string, error) {
	content := map[string]any{}
	for _, c := range columns(&l) {
		v, err := driver.DefaultParameterConverter.ConvertValue(c.field)
		if err != nil {
			return "", fmt.Errorf("digest of column %s: %w", c.name, err)
		}
		if v != "" && v != int64(0) {
			content[c.name] = v
		}
	}
	raw, err := json.Marshal(content)
	if err != nil {
		return "", fmt.Errorf("digest of lease %s: %w", l.ID, err)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:]), nil
}

func scanLease(s scanner) (lease.Lease, error) {
	var l lease.Lease
	err := s.Scan(fields(&l)...)
	return l, err
}
