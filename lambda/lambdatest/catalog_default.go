package lambdatest

// DefaultCatalog is a copy of Lambda's public catalogue: types, sizes and prices
// as of late 2026, all regions, and capacity that looks like an ordinary day:
// small machines here and there, one lonely 8x, no B200.
func DefaultCatalog() *Catalog {
	few := func(regions ...string) map[string]int {
		m := map[string]int{}
		for _, r := range regions {
			m[r] = Unlimited
		}
		return m
	}
	gpu := func(name, description, gpuDescription string, n, vcpus, mem, disk int, cents int64, smi string, mib int, capacity map[string]int) Type {
		return Type{Name: name, Description: description, GPUDescription: gpuDescription, PriceCentsPerHour: cents,
			Specs: Specs{VCPUs: vcpus, MemoryGiB: mem, StorageGiB: disk, GPUs: n}, GPUName: smi, GPUMemoryMiB: mib, Capacity: capacity}
	}
	const (
		a10, a6000         = "A10 (24 GB PCIe)", "A6000 (48 GB)"
		a100, a100s, a100L = "A100 (40 GB PCIe)", "A100 (40 GB SXM4)", "A100 (80 GB SXM4)"
		h100, h100s        = "H100 (80 GB PCIe)", "H100 (80 GB SXM5)"
		gh200, b200        = "GH200 (96 GB)", "B200 (180 GB SXM6)"
		v100, rtx          = "Tesla V100 (16 GB)", "RTX 6000 (24 GB)"
	)
	types := []Type{
		gpu("gpu_1x_a10", "1x "+a10, a10, 1, 30, 200, 1400, 129, "NVIDIA A10", 23028, few("us-east-1", "us-west-1")),
		gpu("gpu_1x_a6000", "1x "+a6000, a6000, 1, 14, 100, 200, 109, "NVIDIA RTX A6000", 49140, few("us-south-1")),
		gpu("gpu_2x_a6000", "2x "+a6000, a6000, 2, 28, 200, 1024, 218, "NVIDIA RTX A6000", 49140, nil),
		gpu("gpu_4x_a6000", "4x "+a6000, a6000, 4, 56, 400, 1024, 436, "NVIDIA RTX A6000", 49140, few("us-south-1")),
		gpu("gpu_1x_a100_sxm4", "1x "+a100s, a100s, 1, 30, 200, 512, 199, "NVIDIA A100-SXM4-40GB", 40960, few("us-east-1", "us-west-2", "asia-south-1")),
		gpu("gpu_1x_a100", "1x "+a100, a100, 1, 30, 200, 512, 199, "NVIDIA A100-PCIE-40GB", 40960, nil),
		gpu("gpu_2x_a100", "2x "+a100, a100, 2, 60, 400, 1024, 398, "NVIDIA A100-PCIE-40GB", 40960, nil),
		gpu("gpu_4x_a100", "4x "+a100, a100, 4, 120, 800, 1024, 796, "NVIDIA A100-PCIE-40GB", 40960, nil),
		gpu("gpu_8x_a100", "8x "+a100s, a100s, 8, 124, 1800, 6144, 1592, "NVIDIA A100-SXM4-40GB", 40960, few("us-midwest-1")),
		gpu("gpu_8x_a100_80gb_sxm4", "8x "+a100L, a100L, 8, 240, 1800, 20480, 2232, "NVIDIA A100-SXM4-80GB", 81920, nil),
		gpu("gpu_1x_h100_pcie", "1x "+h100, h100, 1, 26, 200, 1024, 329, "NVIDIA H100 PCIe", 81559, few("us-west-3")),
		gpu("gpu_1x_h100_sxm5", "1x "+h100s, h100s, 1, 26, 225, 2816, 429, "NVIDIA H100 80GB HBM3", 81559, few("us-south-2", "us-south-3")),
		gpu("gpu_2x_h100_sxm5", "2x "+h100s, h100s, 2, 52, 450, 5632, 838, "NVIDIA H100 80GB HBM3", 81559, nil),
		gpu("gpu_4x_h100_sxm5", "4x "+h100s, h100s, 4, 104, 900, 11264, 1636, "NVIDIA H100 80GB HBM3", 81559, nil),
		gpu("gpu_8x_h100_sxm5", "8x "+h100s, h100s, 8, 208, 1800, 22528, 3192, "NVIDIA H100 80GB HBM3", 81559, few("us-south-2")),
		gpu("gpu_1x_gh200", "1x "+gh200, gh200, 1, 64, 432, 4096, 229, "NVIDIA GH200 480GB", 97871, few("us-east-3")),
		gpu("gpu_1x_b200_sxm6", "1x "+b200, b200, 1, 26, 360, 2867, 699, "NVIDIA B200", 183359, nil),
		gpu("gpu_2x_b200_sxm6", "2x "+b200, b200, 2, 52, 720, 5632, 1378, "NVIDIA B200", 183359, nil),
		gpu("gpu_4x_b200_sxm6", "4x "+b200, b200, 4, 104, 1440, 11264, 2716, "NVIDIA B200", 183359, nil),
		gpu("gpu_8x_b200_sxm6", "8x "+b200, b200, 8, 208, 2900, 22528, 5352, "NVIDIA B200", 183359, nil),
		gpu("gpu_8x_v100", "8x "+v100, v100, 8, 92, 448, 6042, 632, "Tesla V100-SXM2-16GB", 16384, few("us-south-1")),
		gpu("gpu_8x_v100_n", "8x "+v100, v100, 8, 92, 448, 6042, 632, "Tesla V100-SXM2-16GB", 16384, nil),
		gpu("gpu_1x_rtx6000", "1x "+rtx, rtx, 1, 14, 46, 512, 69, "Quadro RTX 6000", 24576, few("us-south-1")),
		gpu("cpu_4x_general", "4x CPU General (16 GiB)", "N/A", 0, 4, 16, 100, 20, "", 0, few("us-east-1")),
		gpu("cpu_4x_generalx", "4x CPU General (16 GiB)", "N/A", 0, 4, 16, 100, 20, "", 0, nil),
	}
	for i := range types {
		types[i].Architecture = "x86_64"
		if types[i].Name == "gpu_1x_gh200" {
			types[i].Architecture = "arm64"
		}
	}
	return &Catalog{Regions: defaultRegions(), Types: types, Images: defaultImages()}
}

func defaultRegions() []Region {
	return []Region{
		{"us-east-1", "Virginia, USA"}, {"us-east-2", "Washington DC, USA"}, {"us-east-3", "Washington DC, USA"},
		{"us-southeast-1", "Georgia, USA"}, {"us-midwest-1", "Illinois, USA"}, {"us-midwest-2", "Ohio, USA"},
		{"us-south-1", "Texas, USA"}, {"us-south-2", "North Texas, USA"}, {"us-south-3", "Central Texas, USA"},
		{"us-west-1", "California, USA"}, {"us-west-2", "Arizona, USA"}, {"us-west-3", "Utah, USA"},
		{"europe-central-1", "Germany"}, {"europe-south-1", "Italy"}, {"me-west-1", "Israel"}, {"asia-south-1", "India"},
		{"asia-northeast-1", "Tokyo, Japan"}, {"asia-northeast-2", "Osaka, Japan"},
		{"australia-east-1", "Sydney, Australia"}, {"australia-southeast-1", "Australia"},
	}
}

func defaultImages() []Image {
	var out []Image
	for _, i := range []Image{
		{Family: "lambda-stack-24-04", Name: "lambda-stack-24.04", Version: "24.4.4-2141", Description: "Lambda Stack on Ubuntu 24.04"},
		{Family: "lambda-stack-22-04", Name: "lambda-stack-22.04", Version: "22.4.5-2141", Description: "Lambda Stack on Ubuntu 22.04"},
		{Family: "gpu-base-24-04", Name: "gpu-base-24.04", Version: "24.4.4-2141", Description: "GPU Base on Ubuntu 24.04"},
		{Family: "gpu-base-22-04", Name: "gpu-base-22.04", Version: "22.4.5-2141", Description: "GPU Base on Ubuntu 22.04"},
	} {
		i.Architecture = "x86_64"
		out = append(out, i)
		i.Architecture, i.Regions = "arm64", []string{"us-east-3"}
		out = append(out, i)
	}
	return out
}
