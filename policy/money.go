package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/invopop/jsonschema"
)

// Money is an amount of US dollars in micro-dollars: 1_290_000 is $1.29. It is exact between ±$9.2 trillion; arithmetic in
// this package saturates instead of wrapping around.
type Money int64

const (
	// Dollar is one US dollar.
	Dollar Money = 1_000_000
	// Unlimited stands for "no cap" in [Decision.BudgetLeft]. It is also where sums saturate.
	Unlimited Money = math.MaxInt64

	cent          Money = Dollar / 100
	moneyDigits         = 6
	minutesAnHour       = 60
)

// Cents is c cents, as Lambda states its prices. It saturates.
func Cents(c int64) Money {
	switch {
	case c > math.MaxInt64/int64(cent):
		return math.MaxInt64
	case c < math.MinInt64/int64(cent):
		return math.MinInt64
	}
	return Money(c) * cent
}

// ParseMoney reads an amount in dollars: "25", "1.29", "$1.29", "-$0.000001". At most six decimals, digits on both sides of
// the point, no exponent, no thousands separator, no leading zeros: what could be read in two ways is an error.
func ParseMoney(s string) (Money, error) {
	text := s
	text, negative := strings.CutPrefix(text, "-")
	text = strings.TrimPrefix(text, "$")
	whole, frac, point := strings.Cut(text, ".")
	if !digits(whole) || point && !digits(frac) {
		return 0, fmt.Errorf("%q is not an amount in dollars such as 1.29", clip(s))
	}
	if len(whole) > 1 && whole[0] == '0' {
		return 0, fmt.Errorf("%q starts with a zero: write the amount without it", clip(s))
	}
	if len(frac) > moneyDigits {
		return 0, fmt.Errorf("%q has more than %d decimals", clip(s), moneyDigits)
	}
	number := whole + frac + strings.Repeat("0", moneyDigits-len(frac))
	if negative {
		number = "-" + number
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is too large an amount", clip(s))
	}
	return Money(n), nil
}

// Decimal is the amount as a plain decimal number of dollars: "1.29", two decimals at least and up to six where needed.
func (m Money) Decimal() string {
	sign, n := "", uint64(m)
	if m < 0 {
		sign, n = "-", -uint64(m)
	}
	frac := fmt.Sprintf("%06d", n%uint64(Dollar))
	frac = frac[:2] + strings.TrimRight(frac[2:], "0")
	return sign + strconv.FormatUint(n/uint64(Dollar), 10) + "." + frac
}

// String is the amount as people read it: "$1.29", "-$0.000001".
func (m Money) String() string {
	if d, negative := strings.CutPrefix(m.Decimal(), "-"); negative {
		return "-$" + d
	}
	return "$" + m.Decimal()
}

// For is what d costs at the rate m per hour: d is rounded up to whole minutes and the result up to a micro-dollar, so that
// it is never under a bill by the minute. A rate or a duration that is not positive costs nothing; the result saturates.
func (m Money) For(d time.Duration) Money {
	if m <= 0 || d <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(m), uint64(minutes(d)))
	if hi >= minutesAnHour {
		return math.MaxInt64
	}
	cost, rest := bits.Div64(hi, lo, minutesAnHour)
	if rest > 0 && cost < math.MaxInt64 {
		cost++
	}
	return Money(min(cost, math.MaxInt64))
}

// MarshalJSON writes the amount as a JSON number made from the integer, never by way of a float: 1.29.
func (m Money) MarshalJSON() ([]byte, error) { return []byte(m.Decimal()), nil }

// UnmarshalJSON reads a JSON number or string by its exact text, as [ParseMoney] does. null is an error: a missing amount is
// not an amount of zero.
func (m *Money) UnmarshalJSON(b []byte) error {
	text := string(bytes.TrimSpace(b))
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(b, &text); err != nil {
			return fmt.Errorf("amount: %w", err)
		}
	}
	v, err := ParseMoney(text)
	if err != nil {
		return fmt.Errorf("amount: %w", err)
	}
	*m = v
	return nil
}

// UnmarshalYAML reads a YAML number or string by its exact text, as [ParseMoney] does.
func (m *Money) UnmarshalYAML(n ast.Node) error {
	text, ok := scalarText(n)
	if !ok {
		return fmt.Errorf("amount: want a number or a string, not a %s", strings.ToLower(n.Type().String()))
	}
	v, err := ParseMoney(text)
	if err != nil {
		return fmt.Errorf("amount: %w", err)
	}
	*m = v
	return nil
}

// JSONSchema describes an amount in a tool's answer: a number of dollars.
func (Money) JSONSchema() *jsonschema.Schema { return &jsonschema.Schema{Type: "number"} }

// plus adds without wrapping around.
func (m Money) plus(o Money) Money {
	sum := m + o
	switch {
	case m > 0 && o > 0 && sum < 0:
		return math.MaxInt64
	case m < 0 && o < 0 && sum >= 0:
		return math.MinInt64
	}
	return sum
}

// minutes is d in whole minutes, rounded up.
func minutes(d time.Duration) int64 {
	n := int64(d / time.Minute)
	if d%time.Minute > 0 {
		n++
	}
	return n
}

func digits(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

// clip keeps text from a file or a caller short enough for a message.
func clip(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
