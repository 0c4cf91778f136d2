package client

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tailscale/hujson"
	"pgregory.net/rapid"
)

var wanted = Entry{Command: "/usr/local/bin/gpulease", Args: []string{"serve"}, Env: map[string]string{"GPULEASE_PRINCIPAL": "x"}}

func host(t *testing.T, name string) Host {
	t.Helper()
	h, err := Find(name)
	require.NoError(t, err)
	return h
}

// file is a host's file with a text in it.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func installed(t *testing.T, h Host, path string, e Entry) string {
	t.Helper()
	edit, err := h.Install(path, e, false)
	require.NoError(t, err)
	_, err = edit.Write()
	require.NoError(t, err)
	return string(edit.After)
}

func uninstalled(t *testing.T, h Host, path string) string {
	t.Helper()
	edit, err := h.Uninstall(path, false)
	require.NoError(t, err)
	_, err = edit.Write()
	require.NoError(t, err)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

func TestInstallIntoNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mcp.json")
	h := host(t, "cursor")
	require.Equal(t, `{
  "mcpServers": {
    "gpulease": {
      "type": "stdio",
      "command": "/usr/local/bin/gpulease",
      "args": [
        "serve"
      ],
      "env": {
        "GPULEASE_INSTALLED": "`+wanted.sum()+`",
        "GPULEASE_PRINCIPAL": "x"
      }
    }
  }
}
`, installed(t, h, path, wanted))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.Equal(t, "{\n  \"mcpServers\": {}\n}\n", uninstalled(t, h, path))
}

// What is in the file stays, byte for byte, and comes back when ours is gone.
func TestInstallChangesNothingElse(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"others":                    "{\n  \"theme\": \"dark\",\n  \"mcpServers\": {\n    \"a\": {\"command\": \"x\"}\n  },\n  \"n\": 1.50\n}\n",
		"tabs":                      "{\n\t\"mcpServers\": {\n\t\t\"a\": {\n\t\t\t\"command\": \"x\"\n\t\t}\n\t}\n}",
		"four spaces":               "{\n    \"mcpServers\": {\n        \"a\": {}\n    }\n}\n",
		"comments":                  "// top\n{\n  // before\n  \"mcpServers\": { // open\n    /* a */ \"a\": {}, // after a\n    // \"b\": {}\n    \"c\": {} // after c\n    // last\n  } // shut\n  // end\n}\n// eof",
		"trailing commas":           "{\n  \"mcpServers\": {\n    \"a\": {},\n  },\n}\n",
		"comment behind a comma":    "{\n  \"mcpServers\": {\n    \"a\": {}, // trailing\n  },\n}\n",
		"CRLF":                      "{\r\n  \"mcpServers\": {\r\n    \"a\": {}\r\n  }\r\n}\r\n",
		"byte order mark":           "\xef\xbb\xbf{\n  \"mcpServers\": {\n    \"a\": {}\n  }\n}\n",
		"minified":                  `{"numStartups":3,"mcpServers":{"a":{"command":"x"}},"z":[1,2]}`,
		"minified, no servers":      `{"numStartups":3,"mcpServers":{}}`,
		"servers in one line":       "{\n  \"mcpServers\": { \"a\": {} }\n}\n",
		"odd white space":           "{\n\n   \"mcpServers\"  :  {\n\n    \"a\" : {}\n\n\n  }  \n\n}\n\n\n",
		"no line ending":            "{\n  \"mcpServers\": {\n    \"a\": {}\n  }\n}",
		"ours named elsewhere":      "{\n  \"gpulease\": 1,\n  \"mcpServers\": {\n    \"gpulease2\": {}\n  }\n}\n",
		"large numbers and escapes": "{\n  \"n\": 12345678901234567890.10,\n  \"s\": \"\\u00e9\\/\",\n  \"mcpServers\": {\n    \"a\": {}\n  }\n}\n",
		"braces at line ends":       "{ \"a\": 1,\n  \"mcpServers\": { \"b\": {},\n    \"c\": {} }}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, h := range []Host{host(t, "claude-code"), host(t, "windsurf")} {
				path := file(t, text)
				after := installed(t, h, path, wanted)
				require.True(t, within(text, after), after)
				again, err := h.Install(path, wanted, false)
				require.NoError(t, err)
				require.False(t, again.Changes(), "once more")
				require.Equal(t, text, uninstalled(t, h, path))
			}
		})
	}
}

// within reports whether a text is still there, in order, with something put in.
func within(text, after string) bool {
	at := 0
	for i := range len(after) {
		if at < len(text) && after[i] == text[at] {
			at++
		}
	}
	return at == len(text)
}

// bare is a text without white space and commas.
func bare(text string) string {
	return strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "", ",", "").Replace(text)
}

func TestInstallMakesTheServers(t *testing.T) {
	t.Parallel()
	h := host(t, "zed")
	for text, left := range map[string]string{
		"{}":                                  `{"context_servers": {}}`,
		"{ }\n":                               "",
		"{\n  // mine\n}\n":                   "",
		"{\n  \"a\": 1\n}\n":                  "{\n  \"a\": 1,\n  \"context_servers\": {}\n}\n",
		"{\n  \"a\": 1, // one\n}\n":          "{\n  \"a\": 1, // one\n  \"context_servers\": {},\n}\n",
		"{\r\n  \"a\": 1\r\n}":                "{\r\n  \"a\": 1,\r\n  \"context_servers\": {}\r\n}",
		"{\"a\":1}":                           `{"a":1,"context_servers":{}}`,
		"":                                    "{\n  \"context_servers\": {}\n}\n",
		"\xef\xbb\xbf\r\n":                    "\xef\xbb\xbf{\r\n  \"context_servers\": {}\r\n}\r\n",
		"{\n\t\"context_servers\": {\n\t}\n}": "{\n\t\"context_servers\": {}\n}",
	} {
		path := file(t, text)
		after := installed(t, h, path, wanted)
		if strings.Contains(text, "mine") {
			require.Contains(t, after, "  // mine\n  \"context_servers\": {\n    \"gpulease\"")
		}
		require.Equal(t, strings.Contains(text, "\r\n"), strings.Contains(after, "\r\n"), after)
		require.NotContains(t, strings.ReplaceAll(after, "\r\n", ""), "\r")
		if strings.Contains(text, "\r\n") {
			require.NotContains(t, strings.ReplaceAll(after, "\r\n", ""), "\n", "one line ending throughout")
		}
		got := uninstalled(t, h, path)
		if left != "" && text != "{}" {
			require.Equal(t, left, got)
		}
	}
}

func TestInstallRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"{\n  \"mcpServers\": {\n    \"a\": {}\n": "line 4",
		"{\n  \"a\": 1,,\n}":                      "line 2",
		"{\"a\": 1}\n{}":                          "line 2",
		"[1]":                                     "line 1: there should be an object",
		"// nothing\n":                            "line 2",
		"{\n \"mcpServers\": []}":                 "holds no servers",
		"{\n \"mcpServers\": null}":               "holds no servers",
		"{\n \"mcpServers\": {},\n \"mcpServers\": {}}":                       "line 3: \"mcpServers\" is there twice",
		"{\"mcpServers\": {\n\"gpulease\": {},\n\"gpulease\": {\"env\":{}}}}": "not as gpulease wrote it",
		"\xff\xfe{\x00}\x00":                  "not UTF-8",
		"{\"mcpServers\": {\"gpulease\": 1}}": "not as gpulease wrote it",
	} {
		path := file(t, text)
		_, err := host(t, "cursor").Install(path, wanted, false)
		require.ErrorContains(t, err, says, text)
		left, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Len(t, left, 1, "nothing was written")
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, text, string(b))
	}
}

// Whatever valid file it is, the others' entries read the same before and after,
// and the text that was there is still there.
func TestInstallIntoAnyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		space := func() string {
			return rapid.SampledFrom([]string{"", " ", "\n", "\r\n", "\t", "\n  ", " // c\n", "/* c */", "\n// {\n  ", "\n\n    "}).Draw(r, "space")
		}
		var object func(depth int, names ...string) string
		object = func(depth int, names ...string) string {
			var b strings.Builder
			b.WriteString("{" + space())
			for i, name := range names {
				value := rapid.SampledFrom([]string{"1", `"x,}"`, "[1, 2]", "{}", "null"}).Draw(r, "value")
				if name == "mcpServers" || depth > 0 && rapid.Bool().Draw(r, "object") {
					value = object(depth-1, rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3, rapid.ID).Draw(r, "names")...)
				}
				key, _ := json.Marshal(name)
				b.WriteString(string(key) + space() + ":" + space() + value + space())
				if i < len(names)-1 || rapid.Bool().Draw(r, "trailing comma") {
					b.WriteString("," + space())
				}
			}
			return b.String() + "}"
		}
		names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "mcpServers", "z"}), 0, 4, rapid.ID).Draw(r, "names")
		text := space() + object(2, names...) + space()
		_, err := hujson.Parse([]byte(text))
		require.NoError(r, err)
		path := filepath.Join(dir, "config")
		require.NoError(r, os.WriteFile(path, []byte(text), 0o600))
		h, err := Find("gemini")
		require.NoError(r, err)
		edit, err := h.Install(path, wanted, false)
		require.NoError(r, err, "%q", text)
		require.True(r, within(text, string(edit.After)), "%q became %q", text, edit.After)
		require.NoError(r, os.WriteFile(path, edit.After, 0o600))
		edit, err = h.Uninstall(path, false)
		require.NoError(r, err, "%q", text)
		was, left := bare(text), bare(string(edit.After))
		if slices.Contains(names, "mcpServers") {
			require.Equal(r, was, left, "%q became %q", text, edit.After)
		} else {
			require.True(r, within(was, left) && len(left) == len(was)+len(`"mcpServers":{}`), "%q became %q", text, edit.After)
		}
	})
}
