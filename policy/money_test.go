package policy_test

import (
	"encoding/json"
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/gpulease/gpulease/policy"
)

func TestParseMoney(t *testing.T) {
	for text, want := range map[string]policy.Money{
		"0": 0, "25": 25_000_000, "1.29": 1_290_000, "$1.29": 1_290_000, "-1.29": -1_290_000, "-$0.000001": -1,
		"0.000001": 1, "1.2": 1_200_000, "0.10": 100_000,
		"9223372036854.775807": math.MaxInt64, "-9223372036854.775808": math.MinInt64,
	} {
		got, err := policy.ParseMoney(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{
		"", "$", "-", ".", "1.", ".5", "1.2345678", "1.0000000", "1e3", "1,000", "1_000", "0x10", "010", "00.5", "+1", "--1",
		"$-1", "$$1", "1 ", " 1", "1.2.3", "1.-2", "inf", "NaN", "none", "١", "9223372036854.775808", "99999999999999999999",
	} {
		_, err := policy.ParseMoney(text)
		require.Error(t, err, "%q", text)
	}
}

func TestMoneyText(t *testing.T) {
	for m, want := range map[policy.Money]string{
		0: "$0.00", 1: "$0.000001", 1_290_000: "$1.29", 1_200_000: "$1.20", 1_234_500: "$1.2345", -5: "-$0.000005",
		25_000_000: "$25.00", math.MinInt64: "-$9223372036854.775808",
	} {
		require.Equal(t, want, m.String())
	}
	require.Equal(t, "1.29", policy.Cents(129).Decimal())
	require.Equal(t, "-1.29", policy.Cents(-129).Decimal())
	require.Equal(t, policy.Money(math.MaxInt64), policy.Cents(math.MaxInt64/100))
	require.Equal(t, policy.Money(math.MinInt64), policy.Cents(math.MinInt64/100))
}

func TestMoneyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := policy.Money(rapid.Int64().Draw(t, "micros"))
		for _, text := range []string{m.String(), m.Decimal()} {
			got, err := policy.ParseMoney(text)
			require.NoError(t, err)
			require.Equal(t, m, got)
		}

		out, err := json.Marshal(struct{ M policy.Money }{m})
		require.NoError(t, err)
		require.Equal(t, `{"M":`+m.Decimal()+`}`, string(out))
		var back struct{ M policy.Money }
		require.NoError(t, json.Unmarshal(out, &back))
		require.Equal(t, m, back.M)

		require.NoError(t, yaml.Unmarshal([]byte("m: "+m.Decimal()+"\n"), &back))
		require.Equal(t, m, back.M)
		require.NoError(t, yaml.Unmarshal([]byte("m: \""+m.String()+"\"\n"), &back))
		require.Equal(t, m, back.M)
	})
}

func TestMoneyUnmarshalRefuses(t *testing.T) {
	var m policy.Money
	for _, text := range []string{`null`, `1e2`, `true`, `{}`, `[]`, `"x"`, `1.2345678`, `""`} {
		require.Error(t, m.UnmarshalJSON([]byte(text)), text)
	}
	require.NoError(t, json.Unmarshal([]byte(`"$1.50"`), &m))
	require.Equal(t, policy.Cents(150), m)

	var doc struct{ M policy.Money }
	for _, text := range []string{"m: [1]", "m: {a: 1}", "m: 1e2", "m: .inf", "m: x", "m: true"} {
		require.Error(t, yaml.Unmarshal([]byte(text), &doc), text)
	}
	require.Equal(t, "number", policy.Money(0).JSONSchema().Type)
}

func TestMoneyFor(t *testing.T) {
	for _, c := range []struct {
		name string
		rate policy.Money
		d    time.Duration
		want policy.Money
	}{
		{"an hour is the rate", policy.Cents(129), time.Hour, policy.Cents(129)},
		{"a nanosecond is a minute", policy.Cents(60), 1, policy.Cents(1)},
		{"a minute and a nanosecond are two", policy.Cents(60), time.Minute + 1, policy.Cents(2)},
		{"a part of a micro-dollar is one", policy.Cents(129), time.Minute, 21_500},
		{"rounded up", 1, time.Minute, 1},
		{"rounded up from a third", 100, 2 * time.Minute, 4},
		{"nothing for no time", policy.Cents(129), 0, 0},
		{"nothing for negative time", policy.Cents(129), -time.Hour, 0},
		{"nothing for no rate", 0, time.Hour, 0},
		{"nothing for a negative rate", -policy.Dollar, time.Hour, 0},
		{"saturates", math.MaxInt64, 2 * time.Hour, math.MaxInt64},
		{"saturates at the ends of both", math.MaxInt64, math.MaxInt64, math.MaxInt64},
		{"saturates where the quotient just overflows", math.MaxInt64, 122 * time.Minute, math.MaxInt64},
		{"does not saturate early", math.MaxInt64, time.Hour, math.MaxInt64},
		{"does not saturate below", math.MaxInt64 - 59, time.Hour, math.MaxInt64 - 59},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, c.rate.For(c.d)) })
	}
}

func TestMoneyForIsTheExactCeiling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Int64Range(1, math.MaxInt64).Draw(t, "rate")
		d := rapid.Int64Range(1, math.MaxInt64).Draw(t, "d")

		ceil := func(a, b *big.Int) *big.Int {
			q, r := new(big.Int).QuoRem(a, b, new(big.Int))
			if r.Sign() > 0 {
				q.Add(q, big.NewInt(1))
			}
			return q
		}
		mins := ceil(big.NewInt(d), big.NewInt(int64(time.Minute)))
		want := ceil(new(big.Int).Mul(big.NewInt(rate), mins), big.NewInt(60))
		if want.Cmp(big.NewInt(math.MaxInt64)) > 0 {
			want = big.NewInt(math.MaxInt64)
		}
		require.Equal(t, want.Int64(), int64(policy.Money(rate).For(time.Duration(d))))
	})
}

func TestWorstCase(t *testing.T) {
	r := policy.Request{PricePerHour: policy.Cents(129), TTL: time.Hour, BootAllowance: 25 * time.Minute, StopAllowance: 5 * time.Minute}
	require.Equal(t, "$1.935", r.WorstCase().String())

	r.BootAllowance, r.StopAllowance = 30*time.Second, 30*time.Second
	require.Equal(t, policy.Cents(129).For(61*time.Minute), r.WorstCase(), "the sum is rounded, not its parts")

	r.StopAllowance = -time.Hour
	require.Equal(t, policy.Cents(129).For(61*time.Minute), r.WorstCase(), "a negative part does not lower the sum")

	r.TTL, r.BootAllowance, r.PricePerHour = math.MaxInt64, math.MaxInt64, math.MaxInt64
	require.Equal(t, policy.Unlimited, r.WorstCase())
}
