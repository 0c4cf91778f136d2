// Package server puts tools behind the Model Context Protocol with mcp-go: the
// stateless protocol of 2026-07-28 and the older ones with an initialize
// handshake, on one server.
//
// It adds what the library leaves open: a deadline for every call and an answer
// even where a handler ignores it, panics that reach the log and not the client,
// progress notes that never arrive after the result, an end that neither hangs
// nor loses answers, and an eye on the parent process. It knows no tool, no lease
// and no policy. Of the server side, only this package imports mcp-go.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/gpulease/gpulease/tools"
)

// Config is what a server is made of. The zero value of every field but Name,
// Version and Tools is usable.
type Config struct {
	Name         string
	Title        string
	Version      string
	Instructions string // how the tools go together, for the model; at most 2,000 characters
	Tools        []tools.Tool
	Icon         string // a data: URI of an image, "" for none

	// Resources are served whose tool is. Live lists those of templates that there are
	// now, for whoever asks.
	Resources []tools.Resource
	Live      func(ctx context.Context) ([]tools.Listed, error)
	Prompts   []tools.Prompt
	// Complete gives the values that an argument of a prompt or a resource may have, of
	// those that begin with prefix; nil: none are told.
	Complete func(ctx context.Context, argument, prefix string, others map[string]string) []string

	Logger *slog.Logger // nil: no log
	// Redact removes secrets from every text of an error. Without it, errors
	// that gpulease has not explained are shown without their cause.
	Redact func(string) string

	// AskPerson lets tools ask the person behind a client (elicitation), where the client
	// says that it can. It is the operator's to switch on: clients answer as they like.
	AskPerson bool

	// Changing: the lists of tools and prompts may change while it is served. Ours never
	// do; those of the conformance suite's server do.
	Changing bool

	// Called is told of every call when it is answered; nil: nobody is.
	Called func(tool string, took time.Duration, err error)
	// CallTimeout is when a call is answered at the latest; 0 means 45 s. A
	// handler's context ends a second before, to leave it the last word.
	CallTimeout time.Duration
	// StopGrace is how long a server that ends waits for calls under way, 0
	// means 2 s. It stays well under the time that hosts give before they kill.
	StopGrace time.Duration
	// ParentPoll is how often ServeStdio looks whether its parent process still
	// lives, 0 means 2 s.
	ParentPoll time.Duration
	// WatchEvery is how often resources are looked at that a client has subscribed to, 0
	// means 5 s.
	WatchEvery time.Duration
}

const (
	defaultCallTimeout = 45 * time.Second
	defaultStopGrace   = 2 * time.Second
	defaultParentPoll  = 2 * time.Second

	// maxInstructions and maxDescription are well under the 4,096 characters at
	// which hosts cut.
	maxInstructions = 2000
	maxDescription  = 1000

	// listTTL is how long clients may keep the list of tools. The list changes
	// only when the process does.
	listTTL = time.Minute
)

// Server is an MCP server with its tools, ready to be served.
type Server struct {
	mcp      *mcpserver.MCPServer
	config   Config
	log      *slog.Logger
	lastWord time.Duration
	web      atomic.Pointer[web] // once it is served over HTTP

	tools     map[string]tools.Tool
	resources []resource
	watches   *watches
	questions *questions
	served    []string // names of the tools, where they were chosen from more
}

// New assembles a server. It fails on what would only show at a client: two
// tools of one name, a tool without schema or function, texts that hosts cut.
func New(c Config) (*Server, error) {
	if c.Name == "" || c.Version == "" {
		return nil, errors.New("a server needs a name and a version")
	}
	if n := len(c.Instructions); n > maxInstructions {
		return nil, fmt.Errorf("the instructions have %d characters, the most is %d", n, maxInstructions)
	}
	c.CallTimeout = orDefault(c.CallTimeout, defaultCallTimeout)
	c.StopGrace = orDefault(c.StopGrace, defaultStopGrace)
	c.ParentPoll = orDefault(c.ParentPoll, defaultParentPoll)
	c.WatchEvery = orDefault(c.WatchEvery, defaultWatchEvery)
	s := &Server{config: c, log: c.Logger, lastWord: min(lastWord, c.CallTimeout/4), tools: map[string]tools.Tool{}, questions: newQuestions()}
	s.watches = &watches{s: s, of: map[string]*watch{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}

	hooks := &mcpserver.Hooks{}
	s.mcp = mcpserver.NewMCPServer(c.Name, c.Version, s.options(hooks)...)

	for _, t := range c.Tools {
		switch {
		case s.tools[t.Name].Call != nil:
			return nil, fmt.Errorf("there are two tools named %q", t.Name)
		case t.Call == nil || len(t.InputSchema) == 0:
			return nil, fmt.Errorf("the tool %q has no function or no input schema", t.Name)
		case len(t.Description) > maxDescription:
			return nil, fmt.Errorf("the description of %q has %d characters, the most is %d", t.Name, len(t.Description), maxDescription)
		}
		s.tools[t.Name], s.served = t, t.Beside()
		s.mcp.AddTool(definition(t), s.handler(t))
	}
	s.addResources(hooks)
	s.addPrompts()
	return s, nil
}

// options are what the library is told. A capability is declared where there is
// something behind it.
func (s *Server) options(hooks *mcpserver.Hooks) []mcpserver.ServerOption {
	c := s.config
	options := []mcpserver.ServerOption{
		mcpserver.WithToolCapabilities(c.Changing),
		mcpserver.WithHooks(hooks),
		// Private: an HTTP server may show principals different tools.
		mcpserver.WithCacheHints(listTTL.Milliseconds(), mcp.CacheScopePrivate),
		mcpserver.WithLogging(),
	}
	if c.Instructions != "" {
		options = append(options, mcpserver.WithInstructions(c.Instructions))
	}
	if c.Title != "" {
		options = append(options, mcpserver.WithTitle(c.Title))
	}
	if c.Icon != "" {
		options = append(options, mcpserver.WithIcons(mcp.Icon{Src: c.Icon, MIMEType: "image/svg+xml", Sizes: []string{"any"}}))
	}
	if len(c.Resources) > 0 {
		s.watches.hook(hooks)
		options = append(options, mcpserver.WithResourceCapabilities(true, true),
			mcpserver.WithMethodCacheHints(mcp.MethodResourcesList, 0, mcp.CacheScopePrivate),
			mcpserver.WithMethodCacheHints(mcp.MethodResourcesRead, 0, mcp.CacheScopePrivate))
	}
	if len(c.Prompts) > 0 {
		options = append(options, mcpserver.WithPromptCapabilities(c.Changing))
	}
	if c.Complete != nil {
		options = append(options, mcpserver.WithCompletions(),
			mcpserver.WithPromptCompletionProvider(completing{s}), mcpserver.WithResourceCompletionProvider(completing{s}))
	}
	return options
}

func orDefault[T int | int64 | float64 | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// MCP is the library's server, for further transports.
func (s *Server) MCP() *mcpserver.MCPServer { return s.mcp }

// definition is a tool as clients see it. The schemas go in as raw bytes into a
// tool that has no other schema: the library fails to encode one with both, and
// then answers tools/list with nothing.
func definition(t tools.Tool) mcp.Tool {
	d := mcp.NewToolWithRawSchema(t.Name, t.Description, t.InputSchema)
	if len(t.OutputSchema) > 0 {
		d.RawOutputSchema = t.OutputSchema
	}
	d.Title = t.Title // not in the annotations too: every word is paid for with every request
	a := t.Annotations
	d.Annotations = mcp.ToolAnnotation{
		ReadOnlyHint:    &a.ReadOnly,
		DestructiveHint: &a.Destructive,
		IdempotentHint:  &a.Idempotent,
		OpenWorldHint:   &a.OpenWorld,
	}
	if t.AlwaysLoad {
		d.Meta = mcp.NewMetaFromMap(map[string]any{"anthropic/alwaysLoad": true})
	}
	return d
}
