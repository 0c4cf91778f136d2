package lambdatest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
)

// Unlimited is a capacity without an end.
const Unlimited = -1

// Region is where instances run.
type Region struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

// Specs are the sizes of an instance type.
type Specs struct {
	VCPUs      int `json:"vcpus"`
	MemoryGiB  int `json:"memory_gib"`
	StorageGiB int `json:"storage_gib"`
	GPUs       int `json:"gpus"`
}

// Type is an instance type and where there is capacity for it.
type Type struct {
	Name              string `json:"name"`
	Description       string `json:"description"`
	GPUDescription    string `json:"gpu_description"`
	PriceCentsPerHour int64  `json:"price_cents_per_hour"` // for the whole instance
	Specs             Specs  `json:"specs"`
	Architecture      string `json:"architecture"` // "x86_64" (also when empty) or "arm64"
	// GPUName and GPUMemoryMiB are what nvidia-smi shows on the machine.
	GPUName      string `json:"gpu_name,omitempty"`
	GPUMemoryMiB int    `json:"gpu_memory_mib,omitempty"`
	// Capacity is how many instances can be launched, by region: Unlimited, or a
	// number that launches use up and ended instances give back.
	Capacity map[string]int `json:"capacity,omitempty"`
}

// Image is a machine image. The service lists it once per region.
type Image struct {
	Family       string   `json:"family"`
	Name         string   `json:"name"`
	Description  string   `json:"description"`
	Version      string   `json:"version"`
	Architecture string   `json:"architecture"`      // "x86_64" (also when empty) or "arm64"
	Regions      []string `json:"regions,omitempty"` // empty means all
}

// Catalog is what the simulated cloud offers.
type Catalog struct {
	Regions []Region `json:"regions"`
	Types   []Type   `json:"types"`
	Images  []Image  `json:"images"`
}

// LoadCatalog reads a catalogue from a JSON file: an object with regions, types
// and images. A list that is missing is taken from [DefaultCatalog]. Unknown
// fields, types without a price and regions that are not listed are errors, so
// whoever lists regions lists types too.
func LoadCatalog(path string) (*Catalog, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read catalogue: %w", err)
	}
	c, d := &Catalog{}, DefaultCatalog()
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		return nil, fmt.Errorf("read catalogue %s: %w", path, err)
	}
	ownRegions := len(c.Regions) > 0
	if !ownRegions {
		c.Regions = d.Regions
	}
	if len(c.Types) == 0 {
		c.Types = d.Types
	}
	if len(c.Images) == 0 {
		c.Images = d.Images
		for n := range c.Images {
			if ownRegions { // where the defaults are does not exist
				c.Images[n].Regions = nil
			}
		}
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("read catalogue %s: %w", path, err)
	}
	return c, nil
}

func (c *Catalog) check() error {
	regions := map[string]bool{}
	for _, r := range c.Regions {
		if r.Name == "" || regions[r.Name] {
			return fmt.Errorf("region %q: no name, or twice in the list", r.Name)
		}
		regions[r.Name] = true
	}
	types := map[string]bool{}
	for _, t := range c.Types {
		switch {
		case t.Name == "" || types[t.Name]:
			return fmt.Errorf("type %q: no name, or twice in the list", t.Name)
		case t.PriceCentsPerHour <= 0:
			return fmt.Errorf("type %s: price_cents_per_hour %d is not above 0", t.Name, t.PriceCentsPerHour)
		case t.Architecture != "" && t.Architecture != "x86_64" && t.Architecture != "arm64":
			return fmt.Errorf("type %s: architecture %q is neither x86_64 nor arm64", t.Name, t.Architecture)
		}
		types[t.Name] = true
		for r := range t.Capacity {
			if !regions[r] {
				return fmt.Errorf("type %s: region %q is not in the list of regions", t.Name, r)
			}
		}
	}
	for _, i := range c.Images {
		if i.Family == "" {
			return fmt.Errorf("image %q: no family", i.Name)
		}
		for _, r := range i.Regions {
			if !regions[r] {
				return fmt.Errorf("image %s: region %q is not in the list of regions", i.Family, r)
			}
		}
	}
	return nil
}

// clone is a copy whose capacities and prices may be changed.
func (c *Catalog) clone() *Catalog {
	out := &Catalog{Regions: c.Regions, Images: c.Images, Types: make([]Type, len(c.Types))}
	for i, t := range c.Types {
		capacity := make(map[string]int, len(t.Capacity))
		for r, n := range t.Capacity {
			capacity[r] = n
		}
		t.Capacity = capacity
		t.Architecture = archOr(t.Architecture)
		out.Types[i] = t
	}
	return out
}

func archOr(arch string) string {
	if arch == "" {
		return "x86_64"
	}
	return arch
}

func (c *Catalog) region(name string) (Region, bool) {
	for _, r := range c.Regions {
		if r.Name == name {
			return r, true
		}
	}
	return Region{}, false
}

func (c *Catalog) typ(name string) *Type {
	for i := range c.Types {
		if c.Types[i].Name == name {
			return &c.Types[i]
		}
	}
	return nil
}

func (i Image) in(region string) bool {
	for _, r := range i.Regions {
		if r == region {
			return true
		}
	}
	return len(i.Regions) == 0
}

// id is the image's id in a region: the same in every run.
func (i Image) id(region string) string {
	h := sha256.Sum256([]byte(i.Family + "|" + i.Version + "|" + archOr(i.Architecture) + "|" + region))
	h[6], h[8] = h[6]&0x0f|0x40, h[8]&0x0f|0x80 // the form of a random UUID
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// image finds an image by id or family for a type in a region. With neither it
// is the default, which is not the same in every region.
func (c *Catalog) image(id, family, region, arch string) (Image, bool) {
	if id == "" && family == "" {
		family = "lambda-stack-24-04"
		if region == "us-east-1" {
			family = "lambda-stack-22-04"
		}
		if i, ok := c.image("", family, region, arch); ok {
			return i, true
		}
		for _, i := range c.Images {
			if i.in(region) && archOr(i.Architecture) == archOr(arch) {
				return i, true
			}
		}
		return Image{}, false
	}
	for _, i := range c.Images {
		if !i.in(region) {
			continue
		}
		if id != "" && i.id(region) == id {
			return i, true
		}
		if id == "" && i.Family == family && archOr(i.Architecture) == archOr(arch) {
			return i, true
		}
	}
	return Image{}, false
}
