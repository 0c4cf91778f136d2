package remote

// Waiting is how many transfers wait for a slot on the connection kept for key.
func (p *Pool) Waiting(key string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.entries[key]; e != nil && e.conn != nil {
		return int(e.conn.waiting.Load())
	}
	return 0
}
