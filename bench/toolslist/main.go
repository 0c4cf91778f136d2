// Command toolslist measures what an agent host pays for gpulease before
// anything happens: the time from process start to the answer of tools/list, and
// the size of that answer in tokens, which goes to the model with every request.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/tiktoken-go/tokenizer"
)

func main() {
	bin := flag.String("bin", "bin/gpulease", "the binary to start")
	runs := flag.Int("n", 20, "how often")
	flag.Parse()
	if err := measure(*bin, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "toolslist:", err)
		os.Exit(1)
	}
}

// requests are what a host sends at once after it has started a server.
var requests = []string{
	`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"toolslist","version":"1"}}}`,
	`{"jsonrpc":"2.0","method":"notifications/initialized"}`,
	`{"jsonrpc":"2.0","id":2,"method":"tools/list"}`,
}

func measure(bin string, runs int) error {
	state, err := os.MkdirTemp("", "toolslist-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	var times []time.Duration
	var answer []byte
	for range runs {
		d, a, err := once(bin, state)
		if err != nil {
			return err
		}
		times, answer = append(times, d), a
	}
	slices.Sort(times)
	fmt.Printf("process start to tools/list: median %s, min %s, max %s (%d runs)\n",
		times[len(times)/2].Round(100*time.Microsecond), times[0].Round(100*time.Microsecond), times[len(times)-1].Round(100*time.Microsecond), runs)
	return tokens(answer)
}

func once(bin, state string) (d time.Duration, answer []byte, err error) {
	cmd := exec.Command(bin, "serve")
	cmd.Env = append(os.Environ(), "GPULEASE_STATE_DIR="+state, "LAMBDA_API_KEY=toolslist-no-key")
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, in.Close(), cmd.Wait()) }()
	if _, err := fmt.Fprintln(in, strings.Join(requests, "\n")); err != nil {
		return 0, nil, err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var m struct {
			ID     int             `json:"id"`
			Result json.RawMessage `json:"result"`
		}
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return 0, nil, fmt.Errorf("read the answer: %w", err)
		}
		if m.ID == 2 {
			return time.Since(began), m.Result, nil
		}
	}
	return 0, nil, errors.Join(errors.New("no answer to tools/list"), lines.Err())
}

// tokens counts the tools as the model gets them: name, description and input
// schema. The whole answer, with titles, annotations and output schemas, is
// larger; hosts keep that part to themselves.
func tokens(answer []byte) error {
	enc, err := tokenizer.Get(tokenizer.O200kBase)
	if err != nil {
		return err
	}
	count := func(b []byte) (int, error) { return enc.Count(string(b)) }
	whole, err := count(answer)
	if err != nil {
		return err
	}
	var list struct {
		Tools []struct {
			Name        string          `json:"name"`
			Description string          `json:"description"`
			InputSchema json.RawMessage `json:"inputSchema"`
		} `json:"tools"`
	}
	if err := json.Unmarshal(answer, &list); err != nil {
		return fmt.Errorf("read tools/list: %w", err)
	}
	total := 0
	for _, t := range list.Tools {
		b, err := json.Marshal(t)
		if err != nil {
			return err
		}
		n, err := count(b)
		if err != nil {
			return err
		}
		total += n
		fmt.Printf("  %-16s %5d tokens\n", t.Name, n)
	}
	fmt.Printf("tools/list: %d tools, %d tokens for the model (name, description, input schema), %d tokens and %d bytes as the whole answer (o200k_base)\n",
		len(list.Tools), total, whole, len(answer))
	return nil
}
