package lambdatest

import (
	crand "crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"

	"golang.org/x/crypto/ssh"
)

// maxKeys is how many SSH keys an account may have.
const maxKeys = 1024

// Key is an SSH key of the account.
type Key struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	PublicKey string `json:"public_key"`
}

func (s *Server) key(name string) *Key {
	for _, k := range s.acct.Keys {
		if k.Name == name {
			return k
		}
	}
	return nil
}

// workspaceID is the one workspace of the simulated account.
const workspaceID = "ddaedf1b7a0e41ac981711504493b242"

func (s *Server) keyJSON(k *Key) object {
	o := object{"id": k.ID, "name": k.Name, "public_key": k.PublicKey}
	if s.cfg.Newer {
		o["workspace_id"] = workspaceID
	}
	return o
}

func (s *Server) listKeys(*call) (any, *apiError) {
	out := []object{}
	for _, k := range s.acct.Keys {
		out = append(out, s.keyJSON(k))
	}
	return out, nil
}

// addKey stores a public key or, without one, makes a pair and gives the private
// half away for good. Making it takes long, so mu is not held meanwhile.
func (s *Server) addKey(c *call) (any, *apiError) {
	f, e := s.object(c)
	if e != nil {
		return nil, e
	}
	f.need("name")
	name, public := f.str("name", limits{min: 1, max: 64}), f.str("public_key", limits{min: 1, max: 4096})
	generate := !f.has("public_key")
	if !generate && public != "" && !isPublicKey(public) {
		f.problem("public_key", "Not a public key in a known format")
	}
	private := ""
	if generate && len(*f.problems) == 0 {
		public, private = generateKey(name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tick(c.now)
	if e := s.finish(c, f); e != nil {
		return nil, e
	}
	if s.key(name) != nil {
		return nil, refusef(CodeInvalidParameters, "SSH key name must be unique")
	}
	if len(s.acct.Keys) >= maxKeys {
		return nil, refusef(CodeInvalidParameters, "An account can have at most %d SSH keys", maxKeys)
	}
	k := &Key{ID: s.newID(), Name: name, PublicKey: public}
	s.acct.Keys = append(s.acct.Keys, k)
	s.auditKey(c.now, "created", k)
	s.save()
	o := s.keyJSON(k)
	if generate {
		o["private_key"] = private
	}
	return o, nil
}

func (s *Server) deleteKey(c *call) (any, *apiError) {
	for n, k := range s.acct.Keys {
		if k.ID == c.id {
			s.acct.Keys = append(s.acct.Keys[:n:n], s.acct.Keys[n+1:]...)
			s.auditKey(c.now, "deleted", k)
			return object{}, nil
		}
	}
	return nil, refuse(CodeNotFound)
}

func generateKey(comment string) (public, private string) {
	key, err := rsa.GenerateKey(crand.Reader, 2048)
	if err != nil { // the source of randomness does not fail
		panic(err)
	}
	pub, err := ssh.NewPublicKey(&key.PublicKey)
	if err != nil {
		panic(err)
	}
	public = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub))) + " " + comment
	private = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	return public, private
}

// isPublicKey knows the formats that the service takes: OpenSSH, RFC 4716, and
// PEM with PKCS #1 or PKCS #8.
func isPublicKey(text string) bool { return parsePublicKey(text) != nil }

func parsePublicKey(text string) ssh.PublicKey {
	if k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text)); err == nil {
		return k
	}
	if strings.HasPrefix(strings.TrimSpace(text), "---- BEGIN SSH2 PUBLIC KEY ----") {
		return parseRFC4716(text)
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil
	}
	var key any
	var err error
	if block.Type == "RSA PUBLIC KEY" {
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	} else {
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	}
	if err != nil {
		return nil
	}
	k, err := ssh.NewPublicKey(key)
	if err != nil {
		return nil
	}
	return k
}

func parseRFC4716(text string) ssh.PublicKey {
	var b64 strings.Builder
	continued := false
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		header := continued || strings.Contains(line, ":")
		continued = header && strings.HasSuffix(line, "\\")
		if !header && !strings.HasPrefix(line, "----") {
			b64.WriteString(line)
		}
	}
	raw, err := base64.StdEncoding.DecodeString(b64.String())
	if err != nil {
		return nil
	}
	k, err := ssh.ParsePublicKey(raw)
	if err != nil {
		return nil
	}
	return k
}
