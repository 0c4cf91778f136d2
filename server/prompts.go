package server

import (
	"context"
	"fmt"
	"slices"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/gpulease/gpulease/tools"
)

// maxCompletions is the most values of an answer to completion/complete.
const maxCompletions = 100

func (s *Server) addPrompts() {
	for _, p := range s.config.Prompts {
		if slices.ContainsFunc(p.Needs, func(name string) bool { _, ok := s.tools[name]; return !ok }) {
			continue
		}
		d := mcp.Prompt{Name: p.Name, Title: p.Title, Description: p.Description}
		for _, a := range p.Arguments {
			d.Arguments = append(d.Arguments, mcp.PromptArgument{Name: a.Name, Description: a.Description, Required: a.Required})
		}
		s.mcp.AddPrompt(d, func(ctx context.Context, req mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			if err := fits(p, req.Params.Arguments); err != nil {
				return nil, &coded{Code: mcp.INVALID_PARAMS, text: err.Error()}
			}
			text, err := s.ask(ctx, "prompt "+p.Name, func(ctx context.Context) outcome {
				return s.answer(ctx, textTool(p.Name, func(ctx context.Context) (string, error) { return p.Get(ctx, req.Params.Arguments) }), nil)
			})
			if err != nil {
				return nil, s.forClient(ctx, err, "")
			}
			return mcp.NewGetPromptResult(p.Description, []mcp.PromptMessage{mcp.NewPromptMessage(mcp.RoleUser, mcp.NewTextContent(text))}), nil
		})
	}
}

// fits checks a prompt's arguments by name.
func fits(p tools.Prompt, given map[string]string) error {
	var known []string
	for _, a := range p.Arguments {
		known = append(known, a.Name)
		if a.Required && given[a.Name] == "" {
			return fmt.Errorf("%s needs the argument %s: %s", p.Name, a.Name, a.Description)
		}
	}
	for name := range given {
		if !slices.Contains(known, name) {
			if best := tools.Nearest(name, known); best != "" {
				return fmt.Errorf("%s has no argument %q; did you mean %q?", p.Name, name, best)
			}
			return fmt.Errorf("%s has no argument %q", p.Name, name)
		}
	}
	return nil
}

// completing answers what an argument of a prompt or a resource may be.
type completing struct{ s *Server }

// CompletePromptArgument has its name from the library.
func (c completing) CompletePromptArgument(ctx context.Context, _ string, a mcp.CompleteArgument, known mcp.CompleteContext) (*mcp.Completion, error) {
	return c.complete(ctx, a, known)
}

// CompleteResourceArgument has its name from the library.
func (c completing) CompleteResourceArgument(ctx context.Context, _ string, a mcp.CompleteArgument, known mcp.CompleteContext) (*mcp.Completion, error) {
	return c.complete(ctx, a, known)
}

func (c completing) complete(ctx context.Context, a mcp.CompleteArgument, known mcp.CompleteContext) (*mcp.Completion, error) {
	var values []string
	_, err := c.s.ask(ctx, "complete", func(ctx context.Context) outcome {
		return c.s.answer(ctx, textTool("complete", func(ctx context.Context) (string, error) {
			values = c.s.config.Complete(ctx, a.Name, a.Value, known.Arguments)
			return "", nil
		}), nil)
	})
	if err != nil {
		return nil, c.s.forClient(ctx, err, "")
	}
	total := len(values)
	return &mcp.Completion{Values: values[:min(total, maxCompletions)], Total: total, HasMore: total > maxCompletions}, nil
}
