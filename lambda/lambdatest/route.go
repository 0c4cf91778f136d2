package lambdatest

import (
	"net/http"
	"slices"
	"strings"
)

const basePath = "/api/v1"

// The operations, by their ids in Lambda's OpenAPI document. Fault.Op names them.
const (
	OpListInstances       = "listInstances"
	OpGetInstance         = "getInstance"
	OpRenameInstance      = "postInstance"
	OpListTypes           = "listInstanceTypes"
	OpLaunch              = "launchInstance"
	OpRestart             = "restartInstance"
	OpTerminate           = "terminateInstance"
	OpListKeys            = "listSSHKeys"
	OpAddKey              = "addSSHKey"
	OpDeleteKey           = "deleteSSHKey"
	OpListFilesystems     = "listFilesystems"
	OpCreateFilesystem    = "createFilesystem"
	OpDeleteFilesystem    = "filesystemDelete"
	OpListImages          = "listImages"
	OpListRegions         = "listRegions"
	OpGetFirewallRules    = "firewallRulesList"
	OpSetFirewallRules    = "firewallRulesSet"
	OpListRulesets        = "firewallRulesetsList"
	OpCreateRuleset       = "createFirewallRuleset"
	OpGetRuleset          = "getFirewallRuleset"
	OpUpdateRuleset       = "updateFirewallRuleset"
	OpDeleteRuleset       = "deleteFirewallRuleset"
	OpGetGlobalRuleset    = "getGlobalFirewallRuleset"
	OpUpdateGlobalRuleset = "updateGlobalFirewallRuleset"
	OpAuditEvents         = "getAuditEvents"
)

// op is one operation of the API.
type op struct {
	id, method, path string
	handle           func(*Server, *call) (any, *apiError)
	newer            bool // not in the document: only with Config.Newer
	unlocked         bool // takes mu by itself
}

// operations in the order of matching: fixed paths before those with an id.
var operations = []op{
	{id: OpListInstances, method: "GET", path: "/instances", handle: (*Server).listInstances},
	{id: OpGetInstance, method: "GET", path: "/instances/{id}", handle: (*Server).getInstance},
	{id: OpRenameInstance, method: "POST", path: "/instances/{id}", handle: (*Server).renameInstance},
	{id: OpListTypes, method: "GET", path: "/instance-types", handle: (*Server).listTypes},
	{id: OpLaunch, method: "POST", path: "/instance-operations/launch", handle: (*Server).launch},
	{id: OpRestart, method: "POST", path: "/instance-operations/restart", handle: (*Server).restart},
	{id: OpTerminate, method: "POST", path: "/instance-operations/terminate", handle: (*Server).terminate},
	{id: OpListKeys, method: "GET", path: "/ssh-keys", handle: (*Server).listKeys},
	{id: OpAddKey, method: "POST", path: "/ssh-keys", handle: (*Server).addKey, unlocked: true},
	{id: OpDeleteKey, method: "DELETE", path: "/ssh-keys/{id}", handle: (*Server).deleteKey},
	{id: OpListFilesystems, method: "GET", path: "/file-systems", handle: (*Server).listFilesystems},
	{id: OpListFilesystems, method: "GET", path: "/filesystems", handle: (*Server).listFilesystems, newer: true},
	{id: OpCreateFilesystem, method: "POST", path: "/filesystems", handle: (*Server).createFilesystem},
	{id: OpDeleteFilesystem, method: "DELETE", path: "/filesystems/{id}", handle: (*Server).deleteFilesystem},
	{id: OpListImages, method: "GET", path: "/images", handle: (*Server).listImages},
	{id: OpListRegions, method: "GET", path: "/regions", handle: (*Server).listRegions},
	{id: OpGetFirewallRules, method: "GET", path: "/firewall-rules", handle: (*Server).getRules},
	{id: OpSetFirewallRules, method: "PUT", path: "/firewall-rules", handle: (*Server).setRules},
	{id: OpListRulesets, method: "GET", path: "/firewall-rulesets", handle: (*Server).listRulesets},
	{id: OpCreateRuleset, method: "POST", path: "/firewall-rulesets", handle: (*Server).createRuleset},
	{id: OpGetGlobalRuleset, method: "GET", path: "/firewall-rulesets/global", handle: (*Server).getGlobal},
	{id: OpUpdateGlobalRuleset, method: "PATCH", path: "/firewall-rulesets/global", handle: (*Server).updateGlobal},
	{id: OpGetRuleset, method: "GET", path: "/firewall-rulesets/{id}", handle: (*Server).getRuleset},
	{id: OpUpdateRuleset, method: "PATCH", path: "/firewall-rulesets/{id}", handle: (*Server).updateRuleset},
	{id: OpDeleteRuleset, method: "DELETE", path: "/firewall-rulesets/{id}", handle: (*Server).deleteRuleset},
	{id: OpAuditEvents, method: "GET", path: "/audit-events", handle: (*Server).auditEvents},
}

// Operations lists the ids of all operations, sorted.
func Operations() []string {
	var ids []string
	for _, o := range operations {
		ids = append(ids, o.id)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// route finds the operation. Without one, wrongMethod tells 405 from 404.
func (s *Server) route(r *http.Request) (o *op, id string, wrongMethod bool) {
	path, ok := strings.CutPrefix(r.URL.Path, basePath)
	if !ok {
		return nil, "", false
	}
	for n := range operations {
		c := &operations[n]
		if c.newer && !s.cfg.Newer {
			continue
		}
		if path == "/firewall-rulesets/global" && c.path != path {
			continue // the global one is not an id
		}
		got, ok := matchPath(c.path, path)
		switch {
		case ok && c.method == r.Method:
			return c, got, false
		case ok:
			wrongMethod = true
		}
	}
	return nil, "", wrongMethod
}

func matchPath(pattern, path string) (id string, ok bool) {
	prefix, found := strings.CutSuffix(pattern, "{id}")
	if !found {
		return "", pattern == path
	}
	id, ok = strings.CutPrefix(path, prefix)
	return id, ok && id != "" && !strings.Contains(id, "/")
}
