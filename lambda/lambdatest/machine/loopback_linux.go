package machine

import "fmt"

// Loopback is an address of 127.0.0.0/8 for a machine of its own: the same for
// the same n, and distinct for any 16.5 million numbers in a row. It is never in
// 127.0.0.0/16, where hosts keep addresses for themselves. On systems other than
// Linux there is only 127.0.0.1.
func Loopback(n uint32) string {
	return fmt.Sprintf("127.%d.%d.%d", 1+n/254/256%254, n/254%256, 1+n%254)
}
