package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/gpulease/gpulease/tools"
)

// resource is one with its template, if it has one.
type resource struct {
	tools.Resource
	template *mcp.URITemplate
}

// values are those of the template in a URI; ok says whether the URI is of the resource.
func (r resource) values(uri string) (values map[string]string, ok bool) {
	if r.template == nil {
		return nil, uri == r.URI
	}
	if !r.template.Regexp().MatchString(uri) {
		return nil, false
	}
	values = map[string]string{}
	for name, v := range r.template.Match(uri) {
		values[name] = v.String()
	}
	return values, true
}

// addResources registers the resources whose tool is served.
func (s *Server) addResources(hooks *mcpserver.Hooks) {
	for _, r := range s.config.Resources {
		if _, served := s.tools[r.Tool]; r.Tool != "" && !served {
			continue
		}
		own := resource{Resource: r}
		if strings.Contains(r.URI, "{") {
			t := mcp.NewResourceTemplate(r.URI, r.Name, mcp.WithTemplateDescription(r.Description), mcp.WithTemplateMIMEType(r.MIMEType))
			t.Title = r.Title
			own.template = t.URITemplate
			s.mcp.AddResourceTemplate(t, mcpserver.ResourceTemplateHandlerFunc(s.read(own)))
		} else {
			static := mcp.NewResource(r.URI, r.Name, mcp.WithResourceDescription(r.Description), mcp.WithMIMEType(r.MIMEType))
			static.Title = r.Title
			s.mcp.AddResource(static, s.read(own))
		}
		s.resources = append(s.resources, own)
	}
	hooks.AddAfterListResources(func(ctx context.Context, _ any, _ *mcp.ListResourcesRequest, result *mcp.ListResourcesResult) {
		live, err := s.live(ctx)
		if err != nil {
			s.log.Warn("what there is now could not be listed", "err", s.redact(err.Error()))
		}
		for _, l := range live {
			result.Resources = append(result.Resources, mcp.Resource{URI: l.URI, Name: l.Name, Title: l.Title, MIMEType: l.MIMEType})
		}
		s.watches.listed(ctx)
	})
}

// live are the resources of templates that whoever asks may see now.
func (s *Server) live(ctx context.Context) ([]tools.Listed, error) {
	if s.config.Live == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.CallTimeout/4)
	defer cancel()
	all, err := s.config.Live(ctx)
	if err != nil {
		return nil, err
	}
	var served []tools.Listed
	for _, l := range all {
		if _, _, ok := s.resourceOf(l.URI); ok {
			served = append(served, l)
		}
	}
	return served, nil
}

func (s *Server) resourceOf(uri string) (r resource, values map[string]string, ok bool) {
	for _, r := range s.resources {
		if values, ok := r.values(uri); ok {
			return r, values, true
		}
	}
	return resource{}, nil, false
}

// read answers as the tool behind the resource would, with the same limits.
func (s *Server) read(r resource) mcpserver.ResourceHandlerFunc {
	return func(ctx context.Context, req mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
		values, ok := r.values(req.Params.URI)
		if !ok {
			return nil, fmt.Errorf("%q is no address of %s", req.Params.URI, r.Name)
		}
		text, err := s.ask(ctx, "read "+r.Name, s.reading(r, values))
		if err != nil {
			return nil, s.forClient(ctx, err, req.Params.URI)
		}
		return []mcp.ResourceContents{mcp.TextResourceContents{URI: req.Params.URI, MIMEType: r.MIMEType, Text: text}}, nil
	}
}

// reading is the call behind a resource.
func (s *Server) reading(r resource, values map[string]string) func(context.Context) outcome {
	return func(ctx context.Context) outcome {
		if r.Tool == "" {
			return s.answer(ctx, textTool(r.Name, r.Read), nil)
		}
		arguments, err := r.Arguments(values)
		if err != nil {
			return outcome{err: err}
		}
		raw, err := json.Marshal(arguments)
		if err != nil {
			return outcome{err: fmt.Errorf("encode the arguments of %s: %w", r.Tool, err)}
		}
		o := s.answer(ctx, s.tools[r.Tool], raw)
		if o.err != nil {
			return o
		}
		o.result.Text = string(o.result.Structured)
		if r.Field != "" {
			var fields map[string]json.RawMessage
			o.err = errors.Join(json.Unmarshal(o.result.Structured, &fields), json.Unmarshal(fields[r.Field], &o.result.Text))
		}
		return o
	}
}

// textTool is something that is no tool and is run as one.
func textTool(name string, read func(context.Context) (string, error)) tools.Tool {
	return tools.Tool{Def: tools.Def{Name: name}, Call: func(ctx context.Context, _ json.RawMessage) (tools.Result, error) {
		text, err := read(ctx)
		return tools.Result{Text: text}, err
	}}
}

// ask runs what a client asks for beside its tools, within the time of a call. Its error
// is for forClient.
func (s *Server) ask(ctx context.Context, what string, run func(context.Context) outcome) (string, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.config.CallTimeout-s.lastWord)
	defer cancel()
	o := run(ctx)
	s.record(ctx, what, began, o.err)
	return o.result.Text, o.err
}
