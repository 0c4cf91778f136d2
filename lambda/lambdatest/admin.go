package lambdatest

import "net/http"

const adminPath = "/_sim"

func (s *Server) serveAdmin(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }
