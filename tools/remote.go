package tools

import "slices"

// diskArgument names, where a tool has it, what is brought to the server's disk.
const diskArgument = "results"

// remoteTools are those for agents on other computers. With disk, they may use the
// server's.
func remoteTools(all []Tool, disk bool) []Tool {
	all = slices.DeleteFunc(all, func(t Tool) bool {
		return inSet(portsSet, t.Name) || (!disk && inSet(filesSet, t.Name))
	})
	if disk {
		return all
	}
	for i := range all {
		all[i].in.hide(diskArgument)
		all[i].InputSchema = all[i].in.raw
	}
	return all
}
