package policy_test

import (
	"fmt"
	"time"

	"github.com/gpulease/gpulease/policy"
)

func ExampleEvaluate() {
	p, err := policy.Parse("/home/me/.config/gpulease/policy.yaml", []byte("caps:\n  per_day: 10\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	request := policy.Request{
		Principal: "trainer", Type: "gpu_1x_h100_pcie", Region: "us-west-3", GPUs: 1, PricePerHour: policy.Cents(249),
		TTL: 4 * time.Hour, BootAllowance: 15 * time.Minute, StopAllowance: 5 * time.Minute,
	}
	usage := policy.Usage{Account: policy.Totals{Leases: 1, GPUs: 1, Day: policy.Cents(300)}}
	d := policy.Evaluate(p, request, usage, nil)
	fmt.Println(d.Verdict, d.Code())
	fmt.Println(d.Explain())
	// Output:
	// deny budget_exceeded
	// denied by caps.per_day: worst case $10.79 is more than the $7.00 left of $10.00 a day (set in: /home/me/.config/gpulease/policy.yaml:2)
	// nearest request that passes: gpu_1x_h100_pcie in us-west-3 for 2h28m, worst case $6.972 (the same type for 2h28m instead of 4h)
}

func ExampleParseMoney() {
	m, _ := policy.ParseMoney("$1.29")
	fmt.Println(m, int64(m), m.For(90*time.Minute))
	// Output: $1.29 1290000 $1.935
}

func ExampleParse_error() {
	_, err := policy.Parse("/etc/gpulease/policy.yaml", []byte("caps:\n  per_day: 50\n  per_mnth: 300\n"))
	fmt.Println(err)
	// Output:
	// /etc/gpulease/policy.yaml:3:3: unknown key "caps.per_mnth": the keys here are per_lease, burn_per_hour, per_day, per_week, per_month, lifetime
}
