package openstacktest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

type names struct {
	zones      *table[*zone]
	recordSets *table[*recordSet]
}

type zone struct {
	base
	Name   string `json:"name"`
	Email  string `json:"email"`
	Type   string `json:"type"`
	Status string `json:"status"`
	TTL    int    `json:"ttl"`
	Serial int    `json:"serial"`
}

type recordSet struct {
	base
	ZoneID      string   `json:"zone_id"`
	ZoneName    string   `json:"zone_name"`
	Name        string   `json:"name" api:"c"`
	Type        string   `json:"type" api:"c"`
	TTL         *int     `json:"ttl" api:"cu"`
	Records     []string `json:"records" api:"cu"`
	Description *string  `json:"description" api:"cu"`
	Status      string   `json:"status"`
	Action      string   `json:"action"`
}

func designate(status int, kind, format string, args ...any) error {
	return &apiError{status, map[string]any{"code": status, "type": kind, "message": fmt.Sprintf(format, args...), "request_id": "req-0"}}
}

// seedNames makes the zones of the project demo, each with what Designate itself puts there.
func (c *Cloud) seedNames() {
	for _, name := range c.knobs.zones {
		z := &zone{Name: strings.TrimSuffix(name, ".") + ".", Email: "hostmaster@example.org", Type: "PRIMARY", Status: "ACTIVE", TTL: 3600, Serial: 1}
		z.ID, z.ProjectID = c.newID(), c.identity.demo.ID
		c.names.zones.add(z)
		for kind, value := range map[string]string{"NS": "ns1.example.org.", "SOA": "ns1.example.org. hostmaster.example.org. 1 3600 600 86400 3600"} {
			r := &recordSet{ZoneID: z.ID, ZoneName: z.Name, Name: z.Name, Type: kind, Records: []string{value}, Status: "ACTIVE", Action: "NONE"}
			r.ID, r.ProjectID = c.newID(), z.ProjectID
			c.names.recordSets.add(r)
		}
	}
}

func (c *Cloud) nameRoutes() {
	if len(c.knobs.zones) == 0 {
		return
	}
	on := func(method, path string, status int, do func(*call) (any, error)) {
		c.on(method, prefixNames, "/v2"+path, route{status: status, do: do})
	}
	linked := func(v any, err error) (any, error) {
		if m, ok := v.(map[string]any); ok {
			named := map[string]string{}
			for _, key := range []string{"zones_links", "recordsets_links"} {
				if links, ok := m[key].([]link); ok {
					named["next"] = links[0].Href
					delete(m, key)
				}
			}
			m["links"] = named
		}
		return v, err
	}
	mine := func(q *call, r row) bool { return r.head().ProjectID == q.who.ProjectID }
	on("GET", "/zones", 200, func(q *call) (any, error) {
		q.pagesOf(20)
		return linked(list(q, "zones", "Zone", q.names.zones.where(func(z *zone) bool { return mine(q, z) }), designate))
	})
	on("GET", "/recordsets", 200, func(q *call) (any, error) {
		q.pagesOf(20)
		return linked(list(q, "recordsets", "RecordSet", q.names.recordSets.where(func(r *recordSet) bool { return mine(q, r) }), designate))
	})
	inZone := func(do func(*call, *zone) (any, error)) func(*call) (any, error) {
		return func(q *call) (any, error) {
			z, ok := q.names.zones.get(q.PathValue("zone"))
			if !ok || !mine(q, z) {
				return nil, designate(http.StatusNotFound, "zone_not_found", "Could not find Zone")
			}
			return do(q, z)
		}
	}
	on("GET", "/zones/{zone}/recordsets", 200, inZone(func(q *call, z *zone) (any, error) {
		q.pagesOf(20)
		return linked(list(q, "recordsets", "RecordSet", q.names.recordSets.where(func(r *recordSet) bool { return r.ZoneID == z.ID }), designate))
	}))
	on("POST", "/zones/{zone}/recordsets", 202, inZone(createRecordSet))
	one := func(do func(*call, *recordSet) (any, error)) func(*call) (any, error) {
		return inZone(func(q *call, z *zone) (any, error) {
			r, ok := q.names.recordSets.get(q.PathValue("id"))
			if !ok || r.ZoneID != z.ID {
				return nil, designate(http.StatusNotFound, "recordset_not_found", "Could not find RecordSet")
			}
			return do(q, r)
		})
	}
	on("PUT", "/zones/{zone}/recordsets/{id}", 202, one(func(q *call, r *recordSet) (any, error) {
		return r, writeRecordSet(q, r, atUpdate)
	}))
	on("DELETE", "/zones/{zone}/recordsets/{id}", 202, one(func(q *call, r *recordSet) (any, error) {
		q.names.recordSets.drop(r.ID)
		return r, nil
	}))
}

func createRecordSet(q *call, z *zone) (any, error) {
	r := &recordSet{ZoneID: z.ID, ZoneName: z.Name, Status: "PENDING", Action: "CREATE"}
	r.ID, r.ProjectID = q.newID(), z.ProjectID
	if err := writeRecordSet(q, r, atCreate); err != nil {
		return nil, err
	}
	if !strings.HasSuffix(r.Name, "."+z.Name) && r.Name != z.Name {
		q.misuse("name %q is not in zone %s", r.Name, z.Name)
		return nil, designate(http.StatusBadRequest, "invalid_recordset_location", "RecordSet is not contained within it's parent zone")
	}
	if q.names.recordSets.any(func(o *recordSet) bool {
		return o.ZoneID == z.ID && o.Name == r.Name && (o.Type == r.Type || o.Type == "CNAME" || r.Type == "CNAME")
	}) {
		return nil, designate(http.StatusConflict, "duplicate_recordset", "Duplicate RecordSet")
	}
	q.names.recordSets.add(r)
	return r, nil
}

func writeRecordSet(q *call, r *recordSet, when string) error {
	var f fields
	if err := json.Unmarshal(q.body, &f); err != nil {
		return fmt.Errorf("decoding %q: %w", q.body, err)
	}
	refused, err := assign(r, f, when)
	if len(refused) > 0 || err != nil || len(r.Records) == 0 || slices.Contains(r.Records, "") {
		q.misuse("bad record set: %v %v", refused, err)
		return designate(http.StatusBadRequest, "invalid_object", "Provided object does not match schema")
	}
	return nil
}
