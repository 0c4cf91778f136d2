package policy

import (
	_ "embed"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/invopop/jsonschema"
)

//go:embed starter.yaml
var starter string

// Starter is a commented policy file that holds exactly the defaults, to begin from.
func Starter() string { return starter }

// Schema is the JSON Schema of the policy file, for editors, indented and with a final newline. It is a little more lenient
// than Load: it does not know every time zone.
func Schema() []byte {
	r := jsonschema.Reflector{Anonymous: true, ExpandedStruct: true, Namer: func(t reflect.Type) string {
		return strings.TrimSuffix(t.Name(), "Form")
	}}
	s := r.Reflect(&fileForm{})
	s.Title = "gpulease policy"
	s.Description = "What GPU machines may be leased, for how long, and for how much."
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic("policy: schema: " + err.Error()) // made from fixed types: it cannot fail
	}
	return append(text, '\n')
}

// fileForm and the types below are the form of the file as the schema describes it; limitKeys is what reads it.
type fileForm struct {
	limitsForm
	TimeZone     string                `json:"time_zone,omitempty" jsonschema:"default=UTC,minLength=1" jsonschema_description:"Where days, weeks and months begin: a name such as UTC or Europe/Berlin."`
	RequireGuard bool                  `json:"require_guard,omitempty" jsonschema:"default=true" jsonschema_description:"Refuse a launch while nothing would end the lease if this program died."`
	IdleMode     string                `json:"idle_mode,omitempty" jsonschema:"default=enforce,enum=enforce,enum=warn,enum=off" jsonschema_description:"What becomes of a lease that was idle for its idle_timeout: ended, only warned of, or nothing."`
	ApprovalTime spanForm              `json:"approval_time,omitempty" jsonschema_description:"How long a request may wait for a person's approval. Default: 1h."`
	Untracked    bool                  `json:"count_untracked,omitempty" jsonschema:"default=true" jsonschema_description:"Instances in the account that no lease accounts for count as spending."`
	Network      networkForm           `json:"network,omitempty" jsonschema_description:"How machines are reached. Default: by their public addresses."`
	Principals   map[string]limitsForm `json:"principals,omitempty" jsonschema_description:"Further limits for those who ask under these names; they bind beside the account's."`
}

type limitsForm struct {
	Types              patternsForm  `json:"types,omitempty" jsonschema_description:"Instance types. Default: all."`
	Regions            patternsForm  `json:"regions,omitempty" jsonschema_description:"Regions. Default: all."`
	Images             patternsForm  `json:"images,omitempty" jsonschema_description:"Image families or ids; default is Lambda's own choice. Default: all."`
	MaxPricePerHour    amountForm    `json:"max_price_per_hour,omitempty" jsonschema_description:"Highest price per hour of one machine, in dollars. Default: 10."`
	DefaultTTL         spanForm      `json:"default_ttl,omitempty" jsonschema_description:"Time of a lease when the request gives none. Default: 1h."`
	MaxTTL             spanForm      `json:"max_ttl,omitempty" jsonschema_description:"Longest time of one lease, extensions included. Default: 8h."`
	IdleTimeout        idleForm      `json:"idle_timeout,omitempty" jsonschema_description:"Idle for so long: ended. Default: 30m."`
	MaxLeases          countForm     `json:"max_leases,omitempty" jsonschema_description:"Leases at once. Default: 2."`
	MaxGPUs            countForm     `json:"max_gpus,omitempty" jsonschema_description:"GPUs at once. Default: none."`
	MaxLaunchesPerHour countForm     `json:"max_launches_per_hour,omitempty" jsonschema_description:"Launches within an hour. Default: none."`
	Caps               capsForm      `json:"caps,omitempty" jsonschema_description:"Caps in dollars; what running leases may still spend counts as spent."`
	LeasesOf           []patternForm `json:"leases_of,omitempty" jsonschema_description:"Over HTTP: principals whose leases may be seen and used besides the own ones. Default: none."`
	ApproveAbove       approvalForm  `json:"approve_above,omitempty" jsonschema_description:"A worst case above this waits for a person's approval; 0 for every lease. Default: none."`
}

type patternsForm struct {
	Allow []patternForm `json:"allow,omitempty" jsonschema:"minItems=1" jsonschema_description:"Patterns; * is any run of characters, ? is one."`
	Deny  []patternForm `json:"deny,omitempty" jsonschema_description:"Patterns that win over those allowed."`
}

type networkForm struct {
	TailscaleTags   []tagForm   `json:"tailscale_tags,omitempty" jsonschema_description:"Machines join the tailnet with these tags, and are reached there alone; none for not to join."`
	TailscaleServer serverForm  `json:"tailscale_server,omitempty" jsonschema_description:"The tailnet's control server, where it is not Tailscale's. Default: none."`
	FirewallRuleset rulesetForm `json:"firewall_ruleset,omitempty" jsonschema_description:"Name of the Lambda firewall ruleset that machines are launched with; launches only where there is one. Default: none."`
}

type capsForm struct {
	PerLease    amountForm `json:"per_lease,omitempty" jsonschema_description:"Worst case of one lease. Default: 25."`
	BurnPerHour amountForm `json:"burn_per_hour,omitempty" jsonschema_description:"Prices per hour of all that runs at once. Default: none."`
	PerDay      amountForm `json:"per_day,omitempty" jsonschema_description:"Default: 50."`
	PerWeek     amountForm `json:"per_week,omitempty" jsonschema_description:"From Monday. Default: none."`
	PerMonth    amountForm `json:"per_month,omitempty" jsonschema_description:"Default: 300."`
	Lifetime    amountForm `json:"lifetime,omitempty" jsonschema_description:"Ever. Default: none."`
}

type (
	amountForm   struct{}
	approvalForm struct{}
	countForm    struct{}
	spanForm     struct{}
	idleForm     struct{}
	patternForm  struct{}
	tagForm      struct{}
	serverForm   struct{}
	rulesetForm  struct{}
)

// Texts that the loader takes. An amount in quotes may have a dollar sign.
const (
	amountPattern = `^\$?(0|[1-9][0-9]*)(\.[0-9]{1,6})?$`
	spanPattern   = `^([0-9]+h([0-9]+m)?|[0-9]+m)$`
	namePattern   = `^[A-Za-z0-9_.*?-]+$`
)

func (amountForm) JSONSchema() *jsonschema.Schema {
	return either(&jsonschema.Schema{Type: "number", ExclusiveMinimum: "0"}, text(amountPattern), word(none))
}

func (approvalForm) JSONSchema() *jsonschema.Schema {
	return either(&jsonschema.Schema{Type: "number", Minimum: "0"}, text(amountPattern), word(none))
}

func (countForm) JSONSchema() *jsonschema.Schema {
	return either(&jsonschema.Schema{Type: "integer", Minimum: "1"}, word(none))
}

func (spanForm) JSONSchema() *jsonschema.Schema { return text(spanPattern) }

func (idleForm) JSONSchema() *jsonschema.Schema { return either(text(spanPattern), word(none)) }

func (patternForm) JSONSchema() *jsonschema.Schema { return text(namePattern) }

func (tagForm) JSONSchema() *jsonschema.Schema { return text(tagPattern) }

func (serverForm) JSONSchema() *jsonschema.Schema { return either(text(serverPattern), word(none)) }

func (rulesetForm) JSONSchema() *jsonschema.Schema { return text(rulesetPattern) }

func either(forms ...*jsonschema.Schema) *jsonschema.Schema { return &jsonschema.Schema{AnyOf: forms} }

func text(pattern string) *jsonschema.Schema {
	least := uint64(1)
	return &jsonschema.Schema{Type: "string", Pattern: pattern, MinLength: &least}
}

func word(w string) *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Const: w} }
