package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// starter is a server whose start is measured.
type starter struct {
	name  string
	args  []string // with the program
	times []time.Duration
	tools int
}

func starts(ctx context.Context, s settings, st *stage) error {
	all := []*starter{{name: "gpulease", args: []string{st.bin, "serve"}}}
	if s.rivals == "" {
		fmt.Println("left out: the start of public servers (-rivals is not given)")
	} else {
		modules := filepath.Join(s.rivals, "node_modules")
		for _, rival := range []struct {
			pkg  string
			args []string
		}{{"server-everything", nil}, {"server-filesystem", []string{st.dir}}} {
			args := []string{filepath.Join(modules, "node/bin/node"), filepath.Join(modules, "@modelcontextprotocol", rival.pkg, "dist/index.js")}
			all = append(all, &starter{name: rival.pkg, args: append(args, rival.args...)})
		}
	}
	for round := range s.starts + 1 {
		for _, one := range all {
			took, err := one.start(ctx, st)
			if err != nil {
				return fmt.Errorf("%s: %w", one.name, err)
			}
			if round > 0 { // the first one reads the program from disk
				one.times = append(one.times, took)
			}
		}
	}
	fmt.Printf("process start to the answer of tools/list, %d starts each\n", s.starts)
	for _, one := range all {
		slices.Sort(one.times)
		half := percentile(one.times, 50)
		fmt.Printf("  %-18s median %8s, min %8s, max %8s  (%5.2fx)  %d tools\n", one.name, short(half), short(one.times[0]), short(one.times[len(one.times)-1]),
			ratio(half, percentile(all[0].times, 50)), one.tools)
	}
	return nil
}

// start is one start, up to the tools, and the server's end, which is not counted.
func (one *starter) start(ctx context.Context, st *stage) (took time.Duration, err error) {
	cmd := exec.Command(one.args[0], one.args[1:]...)
	cmd.Dir, cmd.Env = st.dir, st.env
	began := time.Now()
	w, err := startPipe(cmd)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := greet(ctx, w); err != nil {
		return 0, err
	}
	answer, err := w.ask(ctx, "tools/list", nil)
	if err != nil {
		return 0, err
	}
	took = time.Since(began)
	result, err := checked(answer)
	if err != nil {
		return 0, err
	}
	var list struct {
		Tools []json.RawMessage `json:"tools"`
	}
	if err := json.Unmarshal(result, &list); err != nil {
		return 0, err
	}
	if one.tools = len(list.Tools); one.tools == 0 {
		return 0, errors.New("it lists no tools")
	}
	return took, nil
}
