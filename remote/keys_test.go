//go:build unix

package remote_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/gpulease/gpulease/remote"
)

func TestGenerateKey(t *testing.T) {
	k, err := remote.GenerateKey(rand.Reader)
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(k.PrivatePEM, []byte("-----BEGIN OPENSSH PRIVATE KEY-----\n")))
	require.True(t, bytes.HasSuffix(k.PrivatePEM, []byte("-----END OPENSSH PRIVATE KEY-----\n")))
	signer, err := k.Signer()
	require.NoError(t, err)
	require.Equal(t, k.Public.Marshal(), signer.PublicKey().Marshal())
	parsed, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(k.AuthorizedKey))
	require.NoError(t, err)
	require.Empty(t, rest)
	require.Equal(t, k.Public.Marshal(), parsed.Marshal())
	require.NotContains(t, k.AuthorizedKey, "\n")

	seed := bytes.Repeat([]byte{7}, 32)
	a, err := remote.GenerateKey(bytes.NewReader(seed))
	require.NoError(t, err)
	b, err := remote.GenerateKey(bytes.NewReader(seed))
	require.NoError(t, err)
	require.Equal(t, a.AuthorizedKey, b.AuthorizedKey)
	require.NotEqual(t, a.AuthorizedKey, k.AuthorizedKey)

	_, err = remote.GenerateKey(iotest.ErrReader(fmt.Errorf("dry")))
	require.ErrorContains(t, err, "dry")
}

func TestPrintingShowsNoSecret(t *testing.T) {
	k := newKey(t)
	signer, err := k.Signer()
	require.NoError(t, err)
	target := remote.Target{Key: "lease", Addr: "1.2.3.4:22", User: "ubuntu", Signer: signer, HostKey: k.Public}
	var logged bytes.Buffer
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "key", k, "target", target)
	encoded, err := json.Marshal(k)
	require.NoError(t, err)
	secret := strings.Split(string(k.PrivatePEM), "\n")[2]
	number := fmt.Sprintf("%d %d %d", k.PrivatePEM[40], k.PrivatePEM[41], k.PrivatePEM[42])
	for _, text := range []string{
		fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s", k, k, k, k), fmt.Sprintf("%+v %#v", struct{ K remote.KeyPair }{k}, []remote.KeyPair{k}),
		fmt.Sprintf("%v %+v %#v %s", target, target, target, target), logged.String(), string(encoded),
	} {
		require.NotContains(t, text, secret)
		require.NotContains(t, text, number)
		require.NotContains(t, text, "0x")
	}
	require.Equal(t, "ubuntu@1.2.3.4:22 (lease)", target.String())
}
