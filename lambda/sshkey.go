package lambda

import (
	"context"
	"errors"
	"net/http"
)

// SSHKey is a public key that the account keeps for its instances.
type SSHKey struct {
	ID          string `json:"id"`
	Name        string `json:"name"` // what a launch names
	PublicKey   string `json:"public_key"`
	WorkspaceID string `json:"workspace_id,omitempty"` // newer; often ""
}

func (k *SSHKey) check() error {
	if k.ID == "" || k.Name == "" {
		return errors.New("an ssh key has no id or name")
	}
	return nil
}

// SSHKeys lists the keys of the account.
func (c *Client) SSHKeys(ctx context.Context) ([]SSHKey, error) {
	return list(ctx, c, call{op: OpSSHKeys, method: http.MethodGet, path: "/ssh-keys", safe: true}, (*SSHKey).check)
}

// AddSSHKey stores a public key (OpenSSH, RFC 4716, PKCS 8 or PEM; 1 to 4096 bytes) under a name of 1 to 64 characters. It
// is sent once. An empty public key is refused here, since the service would make a key pair of its own.
func (c *Client) AddSSHKey(ctx context.Context, name, publicKey string) (SSHKey, error) {
	k := call{op: OpAddSSHKey, method: http.MethodPost, path: "/ssh-keys", class: ClassChange, body: struct {
		Name      string `json:"name"`
		PublicKey string `json:"public_key"`
	}{name, publicKey}}
	if err := length("name", name, 1, 64); err != nil {
		return SSHKey{}, c.invalid(k, err)
	}
	if publicKey == "" || len(publicKey) > 4096 {
		return SSHKey{}, c.invalid(k, errors.New("public key must have 1 to 4096 bytes"))
	}
	return object(ctx, c, k, (*SSHKey).check)
}

// GeneratedSSHKey is a key pair that the service made. It does not keep the private half.
type GeneratedSSHKey struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	PublicKey   string `json:"public_key"`
	PrivateKey  Secret `json:"private_key"` // PEM
	WorkspaceID string `json:"workspace_id,omitempty"`
}

func (k *GeneratedSSHKey) check() error {
	if k.PrivateKey.IsZero() {
		return errors.New("there is no private key")
	}
	return (&SSHKey{ID: k.ID, Name: k.Name}).check()
}

// GenerateSSHKey has the service make a key pair under a name of 1 to 64 characters. It is sent once; when the answer is
// lost, so is the private key. A pair that is made here and given to [Client.AddSSHKey] never leaves this machine.
func (c *Client) GenerateSSHKey(ctx context.Context, name string) (GeneratedSSHKey, error) {
	k := call{op: OpGenerateSSHKey, method: http.MethodPost, path: "/ssh-keys", class: ClassChange, body: struct {
		Name string `json:"name"`
	}{name}}
	if err := length("name", name, 1, 64); err != nil {
		return GeneratedSSHKey{}, c.invalid(k, err)
	}
	return object(ctx, c, k, (*GeneratedSSHKey).check)
}

// DeleteSSHKey deletes a key by its id (not its name). It is repeated where that may help, so [IsNotFound] can mean that an
// earlier attempt deleted it.
func (c *Client) DeleteSSHKey(ctx context.Context, id string) error {
	k := call{op: OpDeleteSSHKey, method: http.MethodDelete, class: ClassChange, safe: true}
	var err error
	if k.path, err = pathWith("/ssh-keys/", id); err != nil {
		return c.invalid(k, err)
	}
	_, err = object[struct{}](ctx, c, k, nil)
	return err
}
