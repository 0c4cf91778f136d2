package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gpulease/gpulease/cmd/gpulease/printout"
	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/lease"
)

// keyCommandTimeout bounds a command that prints the key; it may ask a person
// to unlock something.
const keyCommandTimeout = time.Minute

// apiKey finds the key: LAMBDA_API_KEY, or what a command prints, or what a file
// holds. Errors never repeat the key.
func (s *settings) apiKey(ctx context.Context) (lambda.Key, error) {
	text, from := s.env["LAMBDA_API_KEY"], "LAMBDA_API_KEY"
	switch {
	case text != "":
	case s.keyCommand != "":
		from = "LAMBDA_API_KEY_COMMAND"
		out, err := s.runKeyCommand(ctx, from, s.keyCommand)
		if err != nil {
			return lambda.Key{}, err
		}
		text = out
	case s.keyFile != "":
		from = "LAMBDA_API_KEY_FILE"
		f, err := os.Open(s.keyFile)
		if err != nil {
			return lambda.Key{}, fmt.Errorf("read the API key from LAMBDA_API_KEY_FILE: %w", err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxKeyText))
		if err != nil {
			return lambda.Key{}, fmt.Errorf("read the API key from LAMBDA_API_KEY_FILE: %w", err)
		}
		text = string(b)
	default:
		return lambda.Key{}, fmt.Errorf("none of LAMBDA_API_KEY, LAMBDA_API_KEY_COMMAND and LAMBDA_API_KEY_FILE is set: %w", lambda.ErrNoKey)
	}
	k, err := lambda.ParseKey(text)
	if err != nil {
		return lambda.Key{}, fmt.Errorf("%s: %w", from, err)
	}
	return k, nil
}

// maxKeyText bounds what a file or a command says, in bytes.
const maxKeyText = 4096

// runKeyCommand runs the command that a variable holds and returns what it prints.
func (s *settings) runKeyCommand(ctx context.Context, variable, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, keyCommandTimeout)
	defer cancel()
	shell, flag := "sh", "-c"
	if runtime.GOOS == "windows" {
		shell, flag = "cmd", "/C"
	}
	cmd := exec.CommandContext(ctx, shell, flag, command)
	cmd.Dir = s.keyCommandDir
	cmd.WaitDelay = time.Second
	out := printout.Printout{Most: maxKeyText}
	cmd.Stdout = &out
	// Standard error stays unread: what a key command says may hold the key.
	err := cmd.Run()
	if out.Over {
		return "", fmt.Errorf("run %s: it printed more than 4 KiB", variable)
	}
	if err != nil {
		return "", fmt.Errorf("run %s: %w", variable, err)
	}
	return out.String(), nil
}

// account is the Lambda account, found at the first call: a server without a
// key still starts, and says at each call what is missing.
type account struct {
	connect func(context.Context) (*lambda.Client, error)

	mu     sync.Mutex // held while connecting
	client atomic.Pointer[lambda.Client]
}

func (a *account) get(ctx context.Context) (*lambda.Client, error) {
	if c := a.client.Load(); c != nil {
		return c, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.client.Load(); c != nil {
		return c, nil
	}
	c, err := a.connect(ctx)
	if err != nil {
		return nil, &lease.Error{
			Code: lease.CodeBadAPIKey, Message: "there is no usable Lambda API key", Why: err.Error(), Err: err,
			Next: "make a key in Lambda's console and set LAMBDA_API_KEY, LAMBDA_API_KEY_COMMAND or LAMBDA_API_KEY_FILE for the server, then start it again",
		}
	}
	a.client.Store(c)
	return c, nil
}

func (a *account) InstanceTypes(ctx context.Context) ([]lambda.InstanceTypeOffer, error) {
	c, err := a.get(ctx)
	if err != nil {
		return nil, err
	}
	return c.InstanceTypes(ctx)
}

func (a *account) Instances(ctx context.Context) ([]lambda.Instance, error) {
	c, err := a.get(ctx)
	if err != nil {
		return nil, err
	}
	return c.Instances(ctx)
}

func (a *account) Instance(ctx context.Context, id string) (lambda.Instance, error) {
	c, err := a.get(ctx)
	if err != nil {
		return lambda.Instance{}, err
	}
	return c.Instance(ctx, id)
}

func (a *account) SSHKeys(ctx context.Context) ([]lambda.SSHKey, error) {
	c, err := a.get(ctx)
	if err != nil {
		return nil, err
	}
	return c.SSHKeys(ctx)
}

func (a *account) FirewallRulesets(ctx context.Context) ([]lambda.FirewallRuleset, error) {
	c, err := a.get(ctx)
	if err != nil {
		return nil, err
	}
	return c.FirewallRulesets(ctx)
}

func (a *account) Account(ctx context.Context) (string, error) {
	c, err := a.get(ctx)
	if err != nil {
		return "", err
	}
	return c.Account(), nil
}

func (a *account) Sign(ctx context.Context, text string) (string, error) {
	c, err := a.get(ctx)
	if err != nil {
		return "", err
	}
	return c.Sign(text), nil
}

func (a *account) ClockSkew() (time.Duration, uint64) {
	c := a.client.Load()
	if c == nil {
		return 0, 0
	}
	return c.ClockSkew()
}

func (a *account) Launch(ctx context.Context, r lambda.LaunchRequest) (string, error) {
	c, err := a.get(ctx)
	if err != nil {
		return "", err
	}
	return c.Launch(ctx, r)
}

func (a *account) Terminate(ctx context.Context, ids ...string) ([]lambda.Instance, error) {
	c, err := a.get(ctx)
	if err != nil {
		return nil, err
	}
	return c.Terminate(ctx, ids...)
}

func (a *account) AddSSHKey(ctx context.Context, name, publicKey string) (lambda.SSHKey, error) {
	c, err := a.get(ctx)
	if err != nil {
		return lambda.SSHKey{}, err
	}
	return c.AddSSHKey(ctx, name, publicKey)
}

func (a *account) DeleteSSHKey(ctx context.Context, id string) error {
	c, err := a.get(ctx)
	if err != nil {
		return err
	}
	return c.DeleteSSHKey(ctx, id)
}

// AuditEvents is for an adoption, which wants to know when an instance was launched.
func (a *account) AuditEvents(ctx context.Context, q lambda.AuditQuery) iter.Seq2[lambda.AuditEvent, error] {
	c, err := a.get(ctx)
	if err != nil {
		return func(yield func(lambda.AuditEvent, error) bool) { yield(lambda.AuditEvent{}, err) }
	}
	return c.AuditEvents(ctx, q)
}
