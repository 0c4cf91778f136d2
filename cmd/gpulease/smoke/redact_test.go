package smoke

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRedactor(t *testing.T) {
	t.Parallel()
	redact := redactor([]string{"hunter2", ""})
	for in, want := range map[string]string{
		"the key is hunter2.": "the key is [redacted].",
		"secret_me_0123456789abcdef0123456789abcdef.AbCdEf and more":                           "[redacted] and more",
		"a\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n-----END OPENSSH PRIVATE KEY-----\nb": "a\n[redacted]\nb",
		"-----BEGIN RSA PRIVATE KEY-----\nb3Blbn":                                              "[redacted]",
		"https://jupyter-ab.lambdaspaces.com/?token=0123abc&x=1":                               "https://jupyter-ab.lambdaspaces.com/?[redacted]&x=1",
		"Authorization: Bearer abc.def":                                                        "Authorization: [redacted]",
		"nothing here":                                                                         "nothing here",
	} {
		require.Equal(t, want, redact(in))
	}
}
