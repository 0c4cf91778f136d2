package agent

import "github.com/gpulease/gpulease/policy"

// The parts of the tools' answers that the callers of this package read.
type (
	// Offers is the answer of list_capacity.
	Offers struct {
		Offers []struct {
			Type    string       `json:"instance_type"`
			GPU     string       `json:"gpu"`
			GPUs    int          `json:"gpus"`
			Regions []string     `json:"regions"`
			Price   policy.Money `json:"price_usd_per_hour"`
			Allowed bool         `json:"allowed"`
			Rule    string       `json:"rule"`
			Longest int          `json:"longest_ttl_minutes"`
		} `json:"offers"`
		BudgetLeft policy.Money `json:"budget_left_usd"`
	}
	// Quote is the answer of launch_lease with dry_run.
	Quote struct {
		Decision  string       `json:"decision"`
		WorstCase policy.Money `json:"worst_case_usd"`
		Why       string       `json:"why"`
	}
	// Lease is the answer of launch_lease, get_lease and stop_lease.
	Lease struct {
		Lease    string       `json:"lease_id"`
		State    string       `json:"state"`
		Reason   string       `json:"reason"`
		Detail   string       `json:"detail"`
		Rate     policy.Money `json:"price_usd_per_hour"`
		Cost     policy.Money `json:"cost_usd"`
		Reserved policy.Money `json:"reserved_usd"`
		Deadline string       `json:"deadline"`
		Guard    string       `json:"guard"`
		Seconds  int64        `json:"billed_seconds"`
		Warnings []string     `json:"warnings"`
	}
	// Leases is the answer of list_leases.
	Leases struct {
		Leases []Lease `json:"leases"`
	}
	// Job is the answer of run_command.
	Job struct {
		Job      string  `json:"job_id"`
		State    string  `json:"state"`
		Exit     *int    `json:"exit_code"`
		Stdout   string  `json:"stdout"`
		Stderr   string  `json:"stderr"`
		Duration float64 `json:"duration_seconds"`
	}
	// Page is the answer of read_output.
	Page struct {
		State string `json:"state"`
		Exit  *int   `json:"exit_code"`
		Data  string `json:"data"`
		Next  int64  `json:"next_offset"`
		EOF   bool   `json:"eof"`
	}
	// Push is the answer of sync_files.
	Push struct {
		Files int   `json:"files_sent"`
		Bytes int64 `json:"bytes_sent"`
	}
)
