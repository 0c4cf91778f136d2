package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/gpulease/gpulease/lambda"
	"github.com/gpulease/gpulease/ledger"
	"github.com/gpulease/gpulease/policy"
)

// settings are what the environment and the flags of the same names say. A flag
// goes before its variable.
type settings struct {
	env map[string]string

	apiURL         string
	sshPort        int
	policyPath     string
	ledgerPath     string
	stateDir       string
	principal      string
	keyCommand     string
	keyCommandDir  string // where it runs; "" for where we are
	keyFile        string
	authKeyFile    string
	authKeyCommand string
	tailscale      string // the program
	logLevel       string
	policyIsGiven  bool
	checked        bool
	policySets     []policy.Set
	policyFlags    []string
}

func newSettings(environ []string) *settings {
	env := make(map[string]string, len(environ))
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	return &settings{env: env}
}

func (s *settings) or(name, otherwise string) string {
	if v := s.env[name]; v != "" {
		return v
	}
	return otherwise
}

func (s *settings) flags(f *pflag.FlagSet) {
	f.StringVar(&s.apiURL, "api-url", s.or("GPULEASE_API_URL", lambda.DefaultBaseURL), "the cloud's API (GPULEASE_API_URL)")
	port, err := strconv.Atoi(s.or("GPULEASE_SSH_PORT", "22"))
	if err != nil {
		port = -1 // refused by check
	}
	f.IntVar(&s.sshPort, "ssh-port", port, "SSH port of the machines (GPULEASE_SSH_PORT)")
	f.StringVar(&s.policyPath, "policy", s.env["GPULEASE_POLICY"], "policy file (GPULEASE_POLICY; default $XDG_CONFIG_HOME/gpulease/policy.yaml if it is there)")
	f.StringArrayVar(&s.policyFlags, "policy-set", nil, "a rule that holds instead of the file's, such as caps.per_day=5; may be repeated (GPULEASE_POLICY_SET, separated by semicolons)")
	f.StringVar(&s.ledgerPath, "ledger", s.env["GPULEASE_LEDGER"], "the ledger: a file, or postgres://user@host/database (GPULEASE_LEDGER; default ledger.db in the state directory)")
	f.Lookup("ledger").DefValue = ledger.Redact(s.env["GPULEASE_LEDGER"]) // --help shows it
	f.StringVar(&s.stateDir, "state-dir", s.env["GPULEASE_STATE_DIR"], "keys, ledger and locks (GPULEASE_STATE_DIR; default $XDG_STATE_HOME/gpulease)")
	f.StringVar(&s.principal, "principal", s.or("GPULEASE_PRINCIPAL", "default"), "who the agent is, for the policy's limits per principal (GPULEASE_PRINCIPAL)")
	f.StringVar(&s.keyCommand, "lambda-api-key-command", s.env["LAMBDA_API_KEY_COMMAND"], "a command that prints the API key (LAMBDA_API_KEY_COMMAND)")
	f.StringVar(&s.keyFile, "lambda-api-key-file", s.env["LAMBDA_API_KEY_FILE"], "a file that holds the API key (LAMBDA_API_KEY_FILE)")
	f.StringVar(&s.authKeyCommand, "tailscale-authkey-command", s.env[authKeyCommandVariable], "a command that prints a key with which a machine joins the tailnet, where the policy wants that ("+authKeyCommandVariable+")")
	f.StringVar(&s.authKeyFile, "tailscale-authkey-file", s.env[authKeyFileVariable], "a file that holds such a key ("+authKeyFileVariable+")")
	f.StringVar(&s.tailscale, "tailscale", s.or("GPULEASE_TAILSCALE", "tailscale"), "the tailscale program of this computer (GPULEASE_TAILSCALE)")
	f.StringVar(&s.logLevel, "log-level", s.or("GPULEASE_LOG_LEVEL", "info"), "debug, info, warn or error, to standard error (GPULEASE_LOG_LEVEL)")
}

// check fills in what depends on the user's directories and refuses what makes
// no sense.
func (s *settings) check() error {
	if s.checked {
		return nil // what was filled in is not to be taken for given
	}
	if s.sshPort < 1 || s.sshPort > 65535 {
		return usageError(fmt.Errorf("GPULEASE_SSH_PORT (or --ssh-port) is not a port between 1 and 65535: %q", s.or("GPULEASE_SSH_PORT", strconv.Itoa(s.sshPort))))
	}
	if s.principal == "" || len(s.principal) > 100 || strings.ContainsAny(s.principal, "\n\r\t ") {
		return usageError(fmt.Errorf("GPULEASE_PRINCIPAL (or --principal) has to be one word of at most 100 characters"))
	}
	home := s.env["HOME"]
	if home == "" {
		if h, err := os.UserHomeDir(); err == nil {
			home = h
		}
	}
	base := func(variable string, otherwise ...string) (string, error) {
		if v := s.env[variable]; filepath.IsAbs(v) {
			return v, nil
		}
		if home == "" {
			return "", usageError(fmt.Errorf("neither %s nor HOME is set; give --state-dir and --policy", variable))
		}
		return filepath.Join(append([]string{home}, otherwise...)...), nil
	}
	if s.stateDir == "" {
		d, err := base("XDG_STATE_HOME", ".local", "state")
		if err != nil {
			return err
		}
		s.stateDir = filepath.Join(d, "gpulease")
	}
	if s.ledgerPath == "" {
		s.ledgerPath = filepath.Join(s.stateDir, "ledger.db")
	}
	if !ledger.OnServer(s.ledgerPath) {
		if err := absolute("GPULEASE_LEDGER", &s.ledgerPath); err != nil {
			return err
		}
	}
	if err := absolute("GPULEASE_STATE_DIR", &s.stateDir); err != nil {
		return err
	}
	if s.keyFile != "" {
		if err := absolute("LAMBDA_API_KEY_FILE", &s.keyFile); err != nil {
			return err
		}
	}
	if s.authKeyFile != "" {
		if err := absolute(authKeyFileVariable, &s.authKeyFile); err != nil {
			return err
		}
	}
	if strings.ContainsAny(s.tailscale, `/\\`) {
		if err := absolute("GPULEASE_TAILSCALE", &s.tailscale); err != nil {
			return err
		}
	}
	if err := s.readPolicySets(); err != nil {
		return err
	}
	s.policyIsGiven = s.policyPath != ""
	if !s.policyIsGiven {
		d, err := base("XDG_CONFIG_HOME", ".config")
		if err != nil {
			return err
		}
		s.policyPath = filepath.Join(d, "gpulease", "policy.yaml")
	}
	if err := absolute("GPULEASE_POLICY", &s.policyPath); err != nil {
		return err
	}
	s.checked = true
	return nil
}

// readPolicySets reads the rules that were given outside of the file; a flag goes
// before the variable.
func (s *settings) readPolicySets() error {
	s.policySets = nil
	add := func(text, source string) error {
		rule, value, ok := strings.Cut(text, "=")
		if !ok {
			return usageError(fmt.Errorf("%s: %q is not RULE=VALUE, such as caps.per_day=5", source, text))
		}
		s.policySets = append(s.policySets, policy.Set{Rule: strings.TrimSpace(rule), Value: strings.TrimSpace(value), Source: source})
		return nil
	}
	for text := range strings.SplitSeq(s.env[policySetVariable], ";") {
		if strings.TrimSpace(text) == "" {
			continue
		}
		if err := add(text, "env "+policySetVariable); err != nil {
			return err
		}
	}
	for _, text := range s.policyFlags {
		if err := add(text, "flag --policy-set"); err != nil {
			return err
		}
	}
	return nil
}

// policySetText is the rules as the variable has them, for a process of our own.
func (s *settings) policySetText() string {
	texts := make([]string, 0, len(s.policySets))
	for _, set := range s.policySets {
		texts = append(texts, set.Rule+"="+set.Value)
	}
	return strings.Join(texts, ";")
}

const policySetVariable = "GPULEASE_POLICY_SET"

// ledgerIsThere reports whether there is a ledger already, and makes none.
func (s *settings) ledgerIsThere() bool {
	if ledger.OnServer(s.ledgerPath) {
		return true // what opens it says the rest
	}
	_, err := os.Stat(s.ledgerPath)
	return !errors.Is(err, fs.ErrNotExist)
}

// absolute makes a path mean the same in every process that it is handed to.
func absolute(name string, path *string) error {
	abs, err := filepath.Abs(*path)
	if err != nil {
		return usageError(fmt.Errorf("%s: %w", name, err))
	}
	*path = abs
	return nil
}

// policySource reads the policy that is in force. A file that was named has to
// be there; the one in the default place need not.
func (s *settings) policySource() *policy.Source {
	return &policy.Source{Path: s.policyPath, Explicit: s.policyIsGiven, Sets: s.policySets}
}
