package server_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/gpulease/gpulease/lease"
	"github.com/gpulease/gpulease/server"
	"github.com/gpulease/gpulease/tools"
)

// The library keeps one stdio session per process, so the tests over stdio run
// this test binary again as the server.
const roleVariable = "SERVER_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "server":
		os.Exit(serve(config()))
	case "asking":
		c := config()
		c.AskPerson = true
		os.Exit(serve(c))
	case "asking-briefly":
		c := config()
		c.AskPerson, c.CallTimeout = true, 4*time.Second
		os.Exit(serve(c))
	case "shop":
		os.Exit(serve((&shop{things: map[string]string{}}).config(config())))
	case "parent":
		os.Exit(parent())
	default:
		os.Exit(m.Run())
	}
}

func config() server.Config {
	return server.Config{
		Name: "test", Title: "Test server", Version: "1.2.3", Instructions: "Echo first.",
		Tools:      kit(),
		ParentPoll: 50 * time.Millisecond,
	}
}

func serve(c server.Config) int {
	s, err := server.New(c)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := s.ServeStdio(ctx, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// parent starts the server with its own streams and waits to be killed.
func parent() int {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), roleVariable+"=server")
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := child.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

type said struct {
	Text string `json:"text" jsonschema_description:"What was said."`
}

type sayIn struct {
	Text string `json:"text" jsonschema:"maxLength=100000" jsonschema_description:"What to say."`
}

type waitIn struct {
	Seconds      int `json:"wait_seconds,omitempty" jsonschema:"minimum=0,maximum=45"`
	Milliseconds int `json:"milliseconds,omitempty"`
}

type waited struct {
	Milliseconds int64 `json:"milliseconds"`
}

type nothing struct{}

// kit is a tool for each way in which a handler can behave.
func kit() []tools.Tool {
	readOnly := tools.Annotations{ReadOnly: true, Idempotent: true}
	return []tools.Tool{
		tools.New(tools.Def{
			Name: "wait_here", Title: "Wait", Description: "Waits as long as it is told and may.", Annotations: readOnly,
		}, func(ctx context.Context, in waitIn) (waited, error) {
			began := time.Now()
			timer := time.NewTimer(tools.Wait(ctx, in.Seconds) + time.Duration(in.Milliseconds)*time.Millisecond)
			defer timer.Stop()
			select {
			case <-timer.C:
				return waited{time.Since(began).Milliseconds()}, nil
			case <-ctx.Done():
				return waited{}, fmt.Errorf("wait: %w", ctx.Err())
			}
		}),
		tools.New(tools.Def{
			Name: "echo", Title: "Echo", Description: "Says the same.", Annotations: readOnly, AlwaysLoad: true,
		}, func(_ context.Context, in sayIn) (said, error) { return said(in), nil }),
		tools.New(tools.Def{Name: "ignore_end", Annotations: tools.Annotations{Destructive: true, OpenWorld: true}},
			func(context.Context, nothing) (nothing, error) { select {} }),
		tools.New(tools.Def{Name: "break_down"}, func(context.Context, nothing) (nothing, error) {
			panic("the key is hunter2")
		}),
		tools.New(tools.Def{Name: "fail_unknown"}, func(context.Context, nothing) (nothing, error) {
			return nothing{}, errors.New("dial with hunter2")
		}),
		tools.New(tools.Def{Name: "fail_known"}, func(context.Context, nothing) (nothing, error) {
			return nothing{}, &lease.Error{Code: lease.CodeNoCapacity, Message: "none free", Retryable: true, LeaseID: "abcdefghijkl"}
		}),
		tools.New(tools.Def{Name: "tell_call"}, func(ctx context.Context, _ nothing) (said, error) {
			return said{tools.CallID(ctx)}, nil
		}),
		tools.New(tools.Def{Name: "put_question"}, func(ctx context.Context, in sayIn) (said, error) {
			asker := tools.Asking(ctx)
			if asker == nil {
				return said{"nobody is asked"}, nil
			}
			limit, cancel := context.WithTimeout(ctx, tools.Wait(ctx, 30))
			defer cancel()
			reply, err := asker.Ask(limit, tools.Question{About: lease.ID(in.Text), Asks: "default", Text: "May I " + in.Text + "?", Yes: "Do it"})
			if err != nil {
				return said{}, err
			}
			return said{fmt.Sprintf("yes %t by %s about %q: %s", reply.Yes, reply.By, asker.About(), reply.Why)}, nil
		}),
		tools.New(tools.Def{Name: "note_and_answer"}, func(ctx context.Context, in sayIn) (said, error) {
			tools.Progress(ctx).Note("nearly there: " + in.Text)
			return said(in), nil
		}),
	}
}

// modern is the _meta with which a client of 2026-07-28 speaks; it has no
// handshake.
func modern(more map[string]any) map[string]any {
	meta := map[string]any{
		"io.modelcontextprotocol/protocolVersion":    "2026-07-28",
		"io.modelcontextprotocol/clientCapabilities": map[string]any{},
	}
	for k, v := range more {
		meta[k] = v
	}
	return meta
}
