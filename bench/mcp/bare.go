package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"
)

// bareRole makes this program the server that ours is compared with.
const bareRole = "serve-bare"

// serveBare is the library alone, with one tool that does nothing: over stdio, or over HTTP on a port that it prints as
// ours does.
func serveBare(args []string) error {
	s := server.NewMCPServer("bare", "1", server.WithToolCapabilities(false))
	s.AddTool(mcp.NewTool("nothing", mcp.WithDescription("Does nothing.")), func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return mcp.NewToolResultText("done"), nil
	})
	if len(args) == 0 {
		return server.ServeStdio(s)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"url": fmt.Sprintf("http://%s/mcp", l.Addr())}); err != nil {
		return err
	}
	web := &http.Server{Handler: server.NewStreamableHTTPServer(s, server.WithStateful(true)), ReadHeaderTimeout: 5 * time.Second}
	return web.Serve(l)
}
