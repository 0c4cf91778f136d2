package lambda

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// InstanceType is a kind of machine and its price.
type InstanceType struct {
	Name           string `json:"name"`            // such as "gpu_8x_h100_sxm5"
	Description    string `json:"description"`     // such as "8x H100 (80 GB SXM5)"
	GPUDescription string `json:"gpu_description"` // such as "H100 (80 GB SXM5)"; any text for a type without GPUs
	// PriceCentsPerHour is the price of the whole instance in US cents. 0 means that the service showed none: such a type
	// is not known to be free.
	PriceCentsPerHour int    `json:"price_cents_per_hour"`
	Specs             Specs  `json:"specs"`
	Architecture      string `json:"architecture,omitempty"` // newer; [ArchX86], [ArchARM] or ""
}

// Specs is what an instance of a type has.
type Specs struct {
	VCPUs      int `json:"vcpus"`
	MemoryGiB  int `json:"memory_gib"`
	StorageGiB int `json:"storage_gib"`
	GPUs       int `json:"gpus"` // may be 0
}

// InstanceTypeOffer is an instance type and where it seemed to be free.
type InstanceTypeOffer struct {
	InstanceType InstanceType `json:"instance_type"`
	// Regions are those with capacity, in the service's order. It is a hint: a launch there may still be refused with
	// [CodeInsufficientCapacity].
	Regions []Region `json:"regions_with_capacity_available"`
}

// InstanceTypes lists all types, sorted by name. The answer may be a few seconds old (see [WithTypesCache]); a refusal of
// a launch for want of capacity makes the next call ask anew.
func (c *Client) InstanceTypes(ctx context.Context) ([]InstanceTypeOffer, error) {
	if kept, ok := c.types.get(c.now(), c.typesTTL).([]InstanceTypeOffer); ok {
		return cloneOffers(kept), nil
	}
	k := call{op: OpInstanceTypes, method: http.MethodGet, path: "/instance-types", safe: true}
	offers, err := share(ctx, &c.flights, string(k.op), false, func(ctx context.Context, f *flight) ([]InstanceTypeOffer, error) {
		k := k.on(f)
		at := c.now()
		var offers []InstanceTypeOffer
		err := c.do(ctx, k, func(env envelope) (err error) {
			offers, err = decodeOffers(env)
			return err
		})
		if err == nil {
			c.types.put(offers, at)
		}
		return offers, err
	})
	if err != nil {
		return nil, c.left(k, err)
	}
	return cloneOffers(offers), nil
}

func decodeOffers(env envelope) ([]InstanceTypeOffer, error) {
	var byName map[string]InstanceTypeOffer
	if err := decodeInto(env.Data, '{', &byName); err != nil {
		return nil, err
	}
	offers := make([]InstanceTypeOffer, 0, len(byName))
	for name, o := range byName {
		if name == "" {
			return nil, errors.New("an instance type has no name")
		}
		if o.InstanceType.PriceCentsPerHour < 0 {
			return nil, fmt.Errorf("instance type %s has a negative price", name)
		}
		o.InstanceType.Name = name
		offers = append(offers, o)
	}
	slices.SortFunc(offers, func(a, b InstanceTypeOffer) int {
		return strings.Compare(a.InstanceType.Name, b.InstanceType.Name)
	})
	return offers, nil
}

func cloneOffers(offers []InstanceTypeOffer) []InstanceTypeOffer {
	offers = slices.Clone(offers)
	for i := range offers {
		offers[i].Regions = slices.Clone(offers[i].Regions)
	}
	return offers
}
