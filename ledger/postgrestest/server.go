// Package postgrestest runs a private PostgreSQL server for tests, as net/http/httptest does for HTTP: its data is in a temporary
// directory, it listens on the loopback interface and a Unix socket only, and it ends with the process that has started it, however that ends.
package postgrestest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrMissing says that this computer has no PostgreSQL server that could be run.
var ErrMissing = errors.New("no PostgreSQL server is installed here (its programs initdb and postgres)")

// Who may connect. The user owns the server; the password has everything in it that an address may not have as it is.
const (
	User     = "gpulease"
	Password = "p@ss/w:rd?#%20'hunter2"
	Database = "gpulease"
)

// Server is a running server.
type Server struct {
	Dir  string // holds ca.pem, which has signed the server's certificate, and the Unix socket
	Port int

	bin  string
	as   account
	cmd  *exec.Cmd
	stop io.WriteCloser // what ends it when it is closed; nil while it does not run
	log  *bytes.Buffer
}

// Start makes a server and starts it. It fails with [ErrMissing], among others.
func Start(ctx context.Context) (s *Server, err error) {
	s = &Server{}
	if s.bin, err = find(); err != nil {
		return nil, err
	}
	if s.as, err = whoRuns(); err != nil {
		return nil, err
	}
	if s.Dir, err = os.MkdirTemp("", "gpulease-postgres-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(s.Dir))
		}
	}()
	if err := s.init(ctx); err != nil {
		return nil, fmt.Errorf("make a PostgreSQL server: %w", err)
	}
	if err := s.run(ctx); err != nil {
		return nil, fmt.Errorf("start a PostgreSQL server: %w", err)
	}
	admin, err := pgx.Connect(ctx, s.address(User, Password, "postgres", nil))
	if err == nil {
		_, err = admin.Exec(ctx, "CREATE DATABASE "+Database)
		err = errors.Join(err, admin.Close(ctx))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a database: %w", err), s.Stop())
	}
	return s, nil
}

// find is where the server's programs are. Debian does not put them into the path.
func find() (dir string, err error) {
	places := []string{}
	if p, err := exec.LookPath("initdb"); err == nil {
		places = append(places, filepath.Dir(p))
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		slices.Reverse(found) // the newest first
		places = append(places, found...)
	}
	for _, dir := range places {
		_, initdb := os.Stat(filepath.Join(dir, "initdb"))
		_, postgres := os.Stat(filepath.Join(dir, "postgres"))
		if initdb == nil && postgres == nil {
			return dir, nil
		}
	}
	return "", ErrMissing
}

// init makes the server's files.
func (s *Server) init(ctx context.Context) error {
	if err := s.certify(); err != nil {
		return err
	}
	if err := os.WriteFile(s.path("password"), []byte(Password+"\n"), 0o600); err != nil {
		return err
	}
	for _, name := range []string{".", "password", "server.key", "server.pem"} {
		if err := s.as.own(s.path(name)); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "initdb"), "--pgdata", s.path("data"), "--username", User, "--pwfile", s.path("password"),
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync")
	cmd.Dir = s.Dir
	s.as.run(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

// guardian runs the server until its own standard input is closed, which the kernel does when our process ends. Then it removes the
// server's files, unless it was told to keep them.
const guardian = `"$@" & server=$!; read -r what; kill -QUIT $server; wait $server; [ "$what" = keep ] || rm -rf data password server.key server.pem ca.pem; true`

func (s *Server) run(ctx context.Context) error {
	if s.Port == 0 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s.Port = l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			return err
		}
	}
	s.log = &bytes.Buffer{}
	s.cmd = exec.Command("/bin/sh", "-c", guardian, "sh", filepath.Join(s.bin, "postgres"), "-D", s.path("data"), "-p", strconv.Itoa(s.Port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+s.Dir, "-c", "max_connections=250",
		"-c", "ssl=on", "-c", "ssl_cert_file="+s.path("server.pem"), "-c", "ssl_key_file="+s.path("server.key"))
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.Dir, s.log, s.log
	s.as.run(s.cmd)
	var err error
	if s.stop, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		c, err := pgx.Connect(ctx, s.address(User, Password, "postgres", nil))
		if err == nil {
			return c.Close(ctx)
		}
		select {
		case <-ctx.Done():
			err = errors.Join(fmt.Errorf("it does not answer: %w", err), s.end("")) // the log is whole only after that
			return fmt.Errorf("%w\n%s", err, s.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// end ends the server as a crash would.
func (s *Server) end(word string) error {
	if s.stop == nil {
		return nil
	}
	_, err := io.WriteString(s.stop, word+"\n")
	err = errors.Join(err, s.stop.Close(), s.cmd.Wait())
	s.stop = nil
	return err
}

// Stop ends the server, if it runs, and removes its files.
func (s *Server) Stop() error { return errors.Join(s.end(""), os.RemoveAll(s.Dir)) }

// Crash ends the server as its machine's crash would; Again starts it again.
func (s *Server) Crash() error { return s.end("keep") }

// Again starts a server that has crashed, at the same address.
func (s *Server) Again(ctx context.Context) error { return s.run(ctx) }

func (s *Server) path(name string) string { return filepath.Join(s.Dir, name) }

// Address is that of the database for its owner, with options such as "search_path" and their values in turn.
func (s *Server) Address(options ...string) string { return s.AddressOf(User, Password, options...) }

// AddressOf is Address for another user.
func (s *Server) AddressOf(user, password string, options ...string) string {
	q := url.Values{}
	for i := 0; i < len(options); i += 2 {
		q.Set(options[i], options[i+1])
	}
	return s.address(user, password, Database, q)
}

func (s *Server) address(user, password, database string, q url.Values) string {
	if !q.Has("sslmode") {
		if q == nil {
			q = url.Values{}
		}
		q.Set("sslmode", "disable")
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)), Path: database, RawQuery: q.Encode()}
	return u.String()
}

// certify makes a certificate for 127.0.0.1, signed by itself.
func (s *Server) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	return errors.Join(
		os.WriteFile(s.path("server.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600),
		os.WriteFile(s.path("server.pem"), certificate, 0o600),
		os.WriteFile(s.path("ca.pem"), certificate, 0o644))
}
