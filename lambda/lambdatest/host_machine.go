package lambdatest

import (
	"context"
	"errors"
	"time"
)

func (s *Server) newHost(context.Context, *instance, time.Duration) (host, error) {
	return nil, errors.New("no machines yet")
}
