package smoke

import (
	"regexp"
	"strings"
)

// What looks like a secret even if we do not know it.
var secretLooks = []*regexp.Regexp{
	regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)`),
	regexp.MustCompile(`\bsecret_[A-Za-z0-9_-]+\.?[A-Za-z0-9]*`),
	regexp.MustCompile(`(?i)\b(token=|bearer |basic )[A-Za-z0-9._~+/=-]+`),
}

const redacted = "[redacted]"

// redactor removes the secrets that are known, and what looks like one.
func redactor(known []string) func(string) string {
	return func(s string) string {
		for _, k := range known {
			if k != "" {
				s = strings.ReplaceAll(s, k, redacted)
			}
		}
		for _, look := range secretLooks {
			s = look.ReplaceAllString(s, redacted)
		}
		return s
	}
}
