package lambdatest

import "time"

// imageTime is the date of every image.
var imageTime = time.Date(2026, 7, 15, 9, 0, 0, 0, time.UTC)

func (s *Server) listTypes(*call) (any, *apiError) {
	out := object{}
	for n := range s.acct.Catalog.Types {
		t := &s.acct.Catalog.Types[n]
		free := []Region{}
		for _, r := range s.acct.Catalog.Regions {
			if t.Capacity[r.Name] != 0 {
				free = append(free, r)
			}
		}
		out[t.Name] = object{"instance_type": s.typeJSON(t), "regions_with_capacity_available": free}
	}
	return out, nil
}

func (s *Server) listRegions(*call) (any, *apiError) { return s.acct.Catalog.Regions, nil }

// listImages has one row per image and region.
func (s *Server) listImages(*call) (any, *apiError) {
	out := []object{}
	for _, i := range s.acct.Catalog.Images {
		for _, r := range s.acct.Catalog.Regions {
			if !i.in(r.Name) {
				continue
			}
			out = append(out, object{
				"id": i.id(r.Name), "created_time": timestamp(imageTime), "updated_time": timestamp(imageTime),
				"name": i.Name, "description": i.Description, "family": i.Family, "version": i.Version,
				"architecture": archOr(i.Architecture), "region": r,
			})
		}
	}
	return out, nil
}
