package lambda

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"
)

// object sends a call that is answered by one object.
func object[T any](ctx context.Context, c *Client, k call, check func(*T) error) (T, error) {
	var out T
	err := c.do(ctx, k, func(env envelope) error {
		out = *new(T) // an earlier attempt may have left something
		if err := decodeInto(env.Data, '{', &out); err != nil {
			return err
		}
		if check != nil {
			return check(&out)
		}
		return nil
	})
	if err != nil {
		return *new(T), err
	}
	return out, nil
}

// list sends a call that is answered by a list, together with all callers who ask the same.
func list[T any](ctx context.Context, c *Client, k call, check func(*T) error) ([]T, error) {
	items, err := share(ctx, &c.flights, string(k.op), true, func(ctx context.Context, f *flight) ([]T, error) {
		k := k.on(f)
		return listOnce(ctx, c, k, check)
	})
	if err != nil {
		return nil, c.left(k, err)
	}
	// Each caller gets a slice of its own. What the items point to is only read by callers of types that have none, or cloned.
	return append(make([]T, 0, len(items)), items...), nil
}

func listOnce[T any](ctx context.Context, c *Client, k call, check func(*T) error) ([]T, error) {
	var items []T
	err := c.do(ctx, k, func(env envelope) error {
		items = nil
		if err := decodeInto(env.Data, '[', &items); err != nil {
			return err
		}
		return checkAll(items, check)
	})
	return items, err
}

func checkAll[T any](items []T, check func(*T) error) error {
	if check == nil {
		return nil
	}
	for i := range items {
		if err := check(&items[i]); err != nil {
			return fmt.Errorf("item %d of %d: %w", i+1, len(items), err)
		}
	}
	return nil
}

// left makes an *Error of what a shared read returns to a caller whose context is done.
func (c *Client) left(k call, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return c.fail(k, &Error{Message: err.Error(), Retry: RetryLater, Err: err})
}

// invalid refuses a call before it is sent.
func (c *Client) invalid(k call, err error) error {
	return c.fail(k, &Error{Code: CodeInvalidParameters, Message: err.Error(), Outcome: NothingHappened, Err: err})
}

// pathWith appends an id to a path. An id that would lead to another path is refused.
func pathWith(prefix, id string) (string, error) {
	if err := checkID(id); err != nil {
		return "", err
	}
	return prefix + url.PathEscape(id), nil
}

func checkID(id string) error {
	if id == "" {
		return errors.New("id is empty")
	}
	if len(id) > 128 || id == "." || id == ".." || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`/\?#%`, r) }) {
		return errors.New("id has characters that no id has")
	}
	return nil
}

func length(what, s string, least, most int) error {
	if n := utf8.RuneCountInString(s); n < least || n > most {
		return fmt.Errorf("%s must have %d to %d characters", what, least, most)
	}
	return nil
}
