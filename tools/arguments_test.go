package tools_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gpulease/gpulease/lease"
)

func TestArgumentsAreMendedWhereThereIsOneReading(t *testing.T) {
	for name, tc := range map[string]struct {
		args string
		want order
	}{
		"integer as a string":            {`{"item":"a","count":"3"}`, order{Item: "a", Count: 3}},
		"integer with spaces":            {`{"item":"a","count":" 3 "}`, order{Item: "a", Count: 3}},
		"integer as 3.0":                 {`{"item":"a","count":3.0}`, order{Item: "a", Count: 3}},
		"integer as a string of 3.0":     {`{"item":"a","count":"3.0"}`, order{Item: "a", Count: 3}},
		"integer as 0.3e1":               {`{"item":"a","count":0.3e1}`, order{Item: "a", Count: 3}},
		"boolean as a string":            {`{"item":"a","express":"True"}`, order{Item: "a", Express: true}},
		"number as a string":             {`{"item":"a","weight":"1.5"}`, order{Item: "a", Weight: 1.5}},
		"string as a number":             {`{"item":12}`, order{Item: "12"}},
		"null means not given":           {`{"item":"a","count":null,"address":null}`, order{Item: "a"}},
		"one string for a list":          {`{"item":"a","notes":"x"}`, order{Item: "a", Notes: []string{"x"}}},
		"a list as a string of JSON":     {`{"item":"a","notes":"[\"x\",\"y\"]"}`, order{Item: "a", Notes: []string{"x", "y"}}},
		"an object as a string of JSON":  {`{"item":"a","address":"{\"street\":\"s\",\"number\":\"4\"}"}`, order{Item: "a", Address: &address{"s", 4}}},
		"values of a map":                {`{"item":"a","env":{"N":1}}`, order{Item: "a", Env: map[string]string{"N": "1"}}},
		"objects in a list":              {`{"item":"a","extras":[{"kind":"x"}]}`, order{Item: "a", Extras: []extra{{"x"}}}},
		"a string that looks like JSON":  {`{"item":"{\"a\":1}"}`, order{Item: `{"a":1}`}},
		"a note that begins with a list": {`{"item":"a","notes":"[1] see below"}`, order{Item: "a", Notes: []string{"[1] see below"}}},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := ordering(t, nil).Call(t.Context(), json.RawMessage(tc.args))
			require.NoError(t, err)
			var got receipt
			require.NoError(t, json.Unmarshal(result.Structured, &got))
			require.Equal(t, tc.want, got.Got)
		})
	}
}

func TestWrongArgumentsAreRefusedInSentences(t *testing.T) {
	for name, tc := range map[string]struct {
		args  string
		first string   // the whole first line
		also  []string // further lines
	}{
		"misspelt": {
			args:  `{"item":"a","cuont":2}`,
			first: `error invalid_input: there is no argument "cuont"; did you mean "count"?`,
			also:  []string{"next: mend this and call place_order again; nothing was done. place_order takes: item, count, express, weight, size, notes, env, address, extras"},
		},
		"misspelt inside": {
			args:  `{"item":"a","address":{"street":"s","nummber":1}}`,
			first: `error invalid_input: there is no argument "address.nummber"; did you mean "address.number"?`,
		},
		"unknown inside a list": {
			args:  `{"item":"a","extras":[{"kind":"x","zzz":1}]}`,
			first: `error invalid_input: there is no argument "extras[0].zzz"; extras[0] takes kind`,
		},
		"nothing like it": {
			args:  `{"item":"a","zzz":2}`,
			first: `error invalid_input: there is no argument "zzz"`,
		},
		"missing": {
			args:  `{}`,
			first: `error invalid_input: item is missing (a string: What to order)`,
		},
		"missing because null": {
			args:  `{"item":null}`,
			first: `error invalid_input: item is missing (a string: What to order)`,
		},
		"too small":    {args: `{"item":"a","count":0}`, first: `error invalid_input: count must be at least 1, but was 0`},
		"too large":    {args: `{"item":"a","count":"99"}`, first: `error invalid_input: count must be at most 8, but was 99`},
		"beyond int64": {args: `{"item":"a","count":99999999999999999999}`, first: `error invalid_input: count must be at most 8, but was 99999999999999999999`},
		"a fraction":   {args: `{"item":"a","count":1.5}`, first: `error invalid_input: count must be an integer, but was 1.5`},
		"not a number": {args: `{"item":"a","count":"many"}`, first: `error invalid_input: count must be an integer, but was the string "many"`},
		"not a flag":   {args: `{"item":"a","express":"yes"}`, first: `error invalid_input: express must be a boolean, but was the string "yes"`},
		"empty":        {args: `{"item":""}`, first: `error invalid_input: item must not be empty`},
		"too long": {
			args:  `{"item":"` + strings.Repeat("x", 21) + `"}`,
			first: `error invalid_input: item must have at most 20 characters, but had 21`,
		},
		"not in the list": {
			args:  `{"item":"a","size":"larg"}`,
			first: `error invalid_input: size must be one of small, large, but was the string "larg"; did you mean "large"?`,
		},
		"too many items": {args: `{"item":"a","notes":["1","2","3"]}`, first: `error invalid_input: notes must have at most 2 items, but had 3`},
		"pattern":        {args: `{"item":"a","extras":[{"kind":"X"}]}`, first: `error invalid_input: extras[0].kind must match ^[a-z]+$, but was the string "X"`},
		"a list for an object": {
			args:  `{"item":"a","address":[]}`,
			first: `error invalid_input: address must be an object, but was a list`,
		},
		"no object":  {args: `[1]`, first: `error invalid_input: the arguments must be one JSON object, but were a list`},
		"not JSON":   {args: `{"item":`, first: `error invalid_input: the arguments are not JSON: unexpected EOF`},
		"two values": {args: `{"item":"a"} {}`, first: `error invalid_input: the arguments are not JSON: text after the first value`},
		"several at once": {
			args:  `{"cuont":2,"size":"x","weight":-1}`,
			first: `error invalid_input: there is no argument "cuont"; did you mean "count"?`,
			also: []string{
				"why: - item is missing (a string: What to order)",
				`- size must be one of small, large, but was the string "x"`,
				"- weight must be at least 0, but was -1",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			called := false
			tool := ordering(t, func(context.Context, order) (receipt, error) { called = true; return receipt{}, nil })
			e, text := refusal(t, tool, tc.args)
			got := strings.Split(text, "\n")
			require.Equal(t, tc.first, got[0])
			for _, line := range tc.also {
				require.Contains(t, got, line)
			}
			require.Equal(t, lease.CodeInvalidInput, e.Code)
			require.Contains(t, text, "\nretryable: no")
			require.Contains(t, text, "nothing was done")
			require.False(t, called, "the handler ran")
		})
	}
}

func TestALongValueIsNotRepeated(t *testing.T) {
	secret := strings.Repeat("s3cret", 10)
	_, text := refusal(t, ordering(t, nil), `{"item":"a","count":"`+secret+`"}`)
	require.NotContains(t, text, "s3cret")
	require.Contains(t, text, "count must be an integer, but was a string of 60 bytes")
}

func FuzzArguments(f *testing.F) {
	f.Add(`{"item":"a","count":"3"}`)
	f.Add(`{"item":"a","extras":[{"kind":"x"},null]}`)
	f.Add(`{"item":"a","count":1e999999999}`)
	f.Add(`{"item":"a","address":"{"}`)
	f.Fuzz(func(t *testing.T, args string) {
		tool := ordering(&testing.T{}, nil)
		_, err := tool.Call(context.Background(), json.RawMessage(args))
		if err != nil {
			require.Equal(t, lease.CodeInvalidInput, lease.CodeOf(err), "%v", err)
		}
	})
}
