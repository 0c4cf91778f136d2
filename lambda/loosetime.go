package lambda

import (
	"encoding/json"
	"time"
)

// looseTime reads ISO 8601 with or without a zone (without is UTC). What it cannot read is the zero time, since no list is to
// fail because of a date.
type looseTime struct{ t time.Time }

func (l *looseTime) UnmarshalJSON(b []byte) error {
	l.t = time.Time{}
	var s string
	if json.Unmarshal(b, &s) != nil {
		return nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil {
			l.t = t.UTC()
			return nil
		}
	}
	return nil
}
