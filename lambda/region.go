package lambda

import (
	"context"
	"net/http"
)

// Region is a place where instances run.
type Region struct {
	Name        string `json:"name"`        // such as "us-west-1"
	Description string `json:"description"` // such as "California, USA"
}

// Regions lists all regions.
func (c *Client) Regions(ctx context.Context) ([]Region, error) {
	return list[Region](ctx, c, call{op: OpRegions, method: http.MethodGet, path: "/regions", safe: true}, nil)
}
