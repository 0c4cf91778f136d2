package tools

import (
	"context"
	"fmt"
	"strings"
)

// Prompt is a beginning that a person picks: what it gives goes to the model as the
// person's own words.
type Prompt struct {
	Name        string
	Title       string
	Description string
	Arguments   []Argument
	Needs       []string // tools without which it is of no use
	Get         func(ctx context.Context, arguments map[string]string) (string, error)
}

// Argument is what a person may say with a prompt.
type Argument struct {
	Name        string
	Description string
	Required    bool
}

// Prompts are those of gpulease.
func Prompts(l Leases) []Prompt {
	return []Prompt{
		{
			Name: "run_my_tests_on_a_gpu", Title: "Run my tests on a GPU",
			Description: "Leases a machine, sends the project, runs its tests and gives the machine back.",
			Arguments: []Argument{
				{Name: "command", Description: "What runs the tests. Default: what the project's own files say."},
				{Name: "instance_type", Description: "Default: the cheapest that is allowed and free."},
			},
			Needs: []string{"list_capacity", "launch_lease", "get_lease", "run_command", "stop_lease"},
			Get:   func(_ context.Context, a map[string]string) (string, error) { return testsPrompt(a), nil },
		},
		{
			Name: "what_have_i_spent", Title: "What have I spent?",
			Description: "Today's and this month's spending, what is reserved, and what is left.",
			Get: func(ctx context.Context, _ map[string]string) (string, error) {
				report, err := spendReport(l).Call(ctx, nil)
				if err != nil {
					return "", err
				}
				return "Tell me what I have spent on GPU machines, what is reserved and what is left under each cap, in a few plain sentences. " +
					"Name every lease that still costs money. This is the report of just now:\n\n" + report.Text, nil
			},
		},
		{
			Name: "pick_a_gpu", Title: "Pick a GPU for a model",
			Description: "Which machine holds a model of N billion parameters, and what it costs.",
			Arguments: []Argument{
				{Name: "parameters_billion", Description: "Size of the model, such as 8 or 70.", Required: true},
				{Name: "precision", Description: "Of the weights: " + strings.Join(precisions(), ", ") + ". Default: bf16."},
				{Name: "use", Description: strings.Join(uses(), ", ") + ". Default: inference."},
			},
			Get: func(ctx context.Context, a map[string]string) (string, error) { return pickPrompt(ctx, l, a) },
		},
	}
}

func testsPrompt(a map[string]string) string {
	kind := "the cheapest GPU type that is allowed and free now"
	if t := strings.TrimSpace(a["instance_type"]); t != "" {
		kind = "the type " + quote(t)
	}
	command := "Find out from the project's own files how its tests are run."
	if c := strings.TrimSpace(a["command"]); c != "" {
		command = fmt.Sprintf("The tests are run with this command:\n\n%s\n", clip(valid(c), maxPart))
	}
	return fmt.Sprintf(`Run this project's tests on a GPU machine of gpulease.

1. Look with list_capacity, and take %s. Say what it costs at most (launch_lease with dry_run) before you launch it with a ttl_minutes that is enough.
2. Wait with get_lease until the lease is ready, and send the project with sync_files.
3. %s
   Install what is missing on the machine, then run them with run_command; follow a long run with read_output.
4. Give the machine back with stop_lease as soon as the tests are done or cannot be run, until confirmed is true.
5. Tell me which tests failed and why, and what the lease has cost.`, kind, command)
}
