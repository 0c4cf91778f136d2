package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gpulease/gpulease/lambda"
)

// Cloud is what doctor knows of Lambda. No method changes anything there.
// *lambda.Client implements it.
type Cloud interface {
	Holdings
	Market
	// Account is a fingerprint of the key, from which the key cannot be found.
	Account() string
	// Sign makes the proof that a name is ours. It asks nobody.
	Sign(text string) string
	ClockSkew() (skew time.Duration, answer uint64)
}

// Holdings is what the account has.
type Holdings interface {
	Instances(ctx context.Context) ([]lambda.Instance, error)
	SSHKeys(ctx context.Context) ([]lambda.SSHKey, error)
	Filesystems(ctx context.Context) ([]lambda.Filesystem, error)
	FirewallRulesets(ctx context.Context) ([]lambda.FirewallRuleset, error)
	FirewallRules(ctx context.Context) ([]lambda.FirewallRule, error)
	GlobalFirewallRuleset(ctx context.Context) (lambda.GlobalFirewallRuleset, error)
}

// Market is what can be had.
type Market interface {
	InstanceTypes(ctx context.Context) ([]lambda.InstanceTypeOffer, error)
	Regions(ctx context.Context) ([]lambda.Region, error)
	Images(ctx context.Context) ([]lambda.Image, error)
}

// signer is Cloud as package lease wants it.
type signer struct{ Cloud }

func (s signer) Sign(_ context.Context, text string) (string, error) { return s.Cloud.Sign(text), nil }

// answer is a reading of Lambda, or why there is none.
type answer[T any] struct {
	got T
	err error
}

func ask[T any](ctx context.Context, call func(context.Context) (T, error)) answer[T] {
	got, err := call(ctx)
	return answer[T]{got, err}
}

// readings is what Lambda said.
type readings struct {
	instances   []lambda.Instance
	keys        answer[[]lambda.SSHKey]
	types       answer[[]lambda.InstanceTypeOffer]
	regions     answer[[]lambda.Region]
	images      answer[[]lambda.Image]
	filesystems answer[[]lambda.Filesystem]
	rules       answer[[]lambda.FirewallRule]
	rulesets    answer[[]lambda.FirewallRuleset] // read only where the policy names one
	global      answer[lambda.GlobalFirewallRuleset]
}

func (x *examination) read(ctx context.Context) {
	x.account.keys = ask(ctx, x.Cloud.SSHKeys)
	x.account.types = ask(ctx, x.Cloud.InstanceTypes)
	x.account.regions = ask(ctx, x.Cloud.Regions)
	x.account.images = ask(ctx, x.Cloud.Images)
	x.account.filesystems = ask(ctx, x.Cloud.Filesystems)
	x.account.rules = ask(ctx, x.Cloud.FirewallRules)
	x.account.global = ask(ctx, x.Cloud.GlobalFirewallRuleset)
	if x.policy != nil && x.policy.Network.FirewallRuleset != "" {
		x.account.rulesets = ask(ctx, x.Cloud.FirewallRulesets)
	}
}

// unread notes that a reading failed, under the class of its error.
func (x *examination) unread(check string, err error) {
	class, mend := Classify(err)
	x.fail(check, class, mend, "not checked: %v", err)
}

// reach looks for the key and asks Lambda the first question. It is false when
// there is no use in asking more.
func (x *examination) reach(ctx context.Context) bool {
	if x.KeyErr != nil {
		mend := "make a key in the console (https://cloud.lambda.ai) and set LAMBDA_API_KEY, LAMBDA_API_KEY_COMMAND or LAMBDA_API_KEY_FILE"
		if !errors.Is(x.KeyErr, lambda.ErrNoKey) {
			mend = "mend what the setting names: it has to give the key and nothing else"
		}
		x.fail("key", Auth, mend, "there is no usable API key: %v", x.KeyErr)
		return false
	}
	x.keyFile()
	instances, err := x.Cloud.Instances(ctx)
	x.account.instances = instances
	if err == nil {
		x.ok("lambda", Network, "%s answers", x.APIURL)
		x.ok("key", Auth, "found in %s, accepted", x.KeySource)
		x.ok("account", Billing, "in good standing as far as the API tells (fingerprint %s, %s)", x.Cloud.Account(), count(len(instances), "instance"))
		return true
	}
	class, mend := Classify(err)
	switch class {
	case Auth:
		x.ok("lambda", Network, "%s answers", x.APIURL)
		x.fail("key", Auth, mend, "found in %s, but Lambda does not accept it: %v", x.KeySource, err)
	case Billing:
		x.ok("lambda", Network, "%s answers", x.APIURL)
		x.ok("key", Auth, "found in %s, known to Lambda", x.KeySource)
		x.fail("account", Billing, mend, "Lambda has blocked the account (fingerprint %s): %v", x.Cloud.Account(), err)
	case Quota:
		x.fail("lambda", Quota, mend, "%s takes no more requests for now: %v", x.APIURL, err)
		x.ok("key", Auth, "found in %s; not tried", x.KeySource)
	default:
		x.fail("lambda", Network, mend, "%s was not reached: %v", x.APIURL, err)
		x.ok("key", Auth, "found in %s; not tried", x.KeySource)
	}
	return false
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
