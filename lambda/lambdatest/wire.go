package lambdatest

import (
	"encoding/json"
	"fmt"
	"time"
)

// The objects of the API as they go over the wire.

type object = map[string]any

func looseJSON(body []byte, into any) error { return json.Unmarshal(body, into) }

func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z07:00") }

func (s *Server) typeJSON(t *Type) object {
	o := object{
		"name": t.Name, "description": t.Description, "gpu_description": t.GPUDescription,
		"price_cents_per_hour": t.PriceCentsPerHour, "specs": t.Specs,
	}
	if s.cfg.Newer {
		o["architecture"] = archOr(t.Architecture)
	}
	return o
}

func (s *Server) instanceJSON(i *instance, now time.Time) object {
	o := object{
		"id": i.ID, "status": i.status(now), "ssh_key_names": i.KeyNames, "file_system_names": s.filesystemNames(i),
		"region": i.Region, "instance_type": s.typeJSON(&i.Type), "actions": s.actionsJSON(i, now),
	}
	// Absent when unset; in the older API null.
	optional := func(name, value string) {
		if value != "" {
			o[name] = value
		} else if s.cfg.Nulls {
			o[name] = nil
		}
	}
	ip, private, hostname, token, url := "", "", i.Hostname, "", ""
	if end := i.endedAt(now); reached(i.IPAt, now) && (end.IsZero() || i.IPAt.Before(end)) {
		ip, private = i.IP, i.PrivateIP
		token = i.JupyterToken
		url = fmt.Sprintf("https://%s-0.lambdaspaces.com/?token=%s", i.ID, token)
		if hostname == "" {
			hostname = guestName(i.IP)
		}
	}
	optional("name", i.Name)
	optional("ip", ip)
	optional("private_ip", private)
	optional("hostname", hostname)
	optional("jupyter_token", token)
	optional("jupyter_url", url)
	if s.cfg.Nulls {
		o["is_reserved"] = false
	}
	if len(i.Mounts) > 0 {
		o["file_system_mounts"] = i.Mounts
	}
	if len(i.Tags) > 0 {
		o["tags"] = i.Tags
	}
	if len(i.Rulesets) > 0 {
		var l []object
		for _, id := range i.Rulesets {
			l = append(l, object{"id": id})
		}
		o["firewall_rulesets"] = l
	}
	if s.cfg.Newer {
		o["first_healthy"] = nil
		if t := i.firstHealthy(now); !t.IsZero() {
			o["first_healthy"] = timestamp(t)
		}
		o["image"] = object{"id": i.ImageID, "family": i.ImageFamily}
	}
	return o
}

// guestName is the name that a machine gives itself, after its address.
func guestName(ip string) string {
	out := []byte(ip)
	for i, c := range out {
		if c == '.' {
			out[i] = '-'
		}
	}
	return string(out)
}

func (s *Server) actionsJSON(i *instance, now time.Time) object {
	blocked := func(code, why string) object {
		return object{"available": false, "reason_code": code, "reason_description": why}
	}
	able, stop := object{"available": true}, object{"available": true}
	switch i.status(now) {
	case Booting:
		able = blocked("vm-has-not-launched", "The instance has not launched yet.")
	case Terminating, Terminated, Preempted:
		able = blocked("vm-is-terminating", "The instance is terminating.")
		stop = able
	default:
		if now.Before(i.BusyUntil) {
			able = blocked("vm-action-in-progress", "Another action is in progress.")
		}
	}
	o := object{"migrate": able, "rebuild": able, "restart": able, "cold_reboot": able, "terminate": stop}
	if s.cfg.Newer {
		o["power_cycle"] = able
	}
	return o
}
