package openstacktest

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
)

// standard is what Neutron gives every resource: the standard attributes.
type standard struct {
	base
	TenantID    string   `json:"tenant_id" api:"c"`
	Description string   `json:"description" api:"cu"`
	Tags        []string `json:"tags"`
	Revision    int      `json:"revision_number"`
	CreatedAt   string   `json:"created_at"`
	UpdatedAt   string   `json:"updated_at"`
}

func (s *standard) std() *standard { return s }

// touch records a change as Neutron does.
func touch(r row) {
	if x, ok := r.(interface{ std() *standard }); ok {
		x.std().Revision++
		x.std().UpdatedAt = stamp()
	}
}

type networking struct {
	networks    *table[*network]
	subnets     *table[*subnet]
	ports       *table[*port]
	routers     *table[*router]
	groups      *table[*group]
	rules       *table[*rule]
	floatingIPs *table[*floatingIP]
	trunks      *table[*trunk]
}

func newNetwork() networking {
	return networking{newTable[*network]("network"), newTable[*subnet]("subnet"), newTable[*port]("port"), newTable[*router]("router"),
		newTable[*group]("security_group"), newTable[*rule]("security_group_rule"), newTable[*floatingIP]("floatingip"), newTable[*trunk]("trunk")}
}

// neutron is an error in Neutron's form; kind is the exception's name.
func neutron(status int, kind, format string, args ...any) error {
	return &apiError{status, map[string]any{"NeutronError": map[string]string{
		"type": kind, "message": fmt.Sprintf(format, args...), "detail": ""}}}
}

// neutronMessage is the sentence of one of Neutron's errors, as other services
// quote it.
func neutronMessage(err error) string {
	var e *apiError
	if !errors.As(err, &e) {
		return err.Error()
	}
	body, _ := e.body.(map[string]any)
	inner, _ := body["NeutronError"].(map[string]string)
	return inner["message"]
}

// invalid is Neutron's InvalidInput.
func invalid(format string, args ...any) error {
	return neutron(http.StatusBadRequest, "InvalidInput", "Invalid input for operation: "+format, args...)
}

func (c *Cloud) networkRoutes() {
	doc := func(q *call) (any, error) {
		return map[string]any{"versions": []any{map[string]any{"id": "v2.0", "status": "CURRENT",
			"links": []link{{"self", c.server.URL + prefixNetwork + "/v2.0/"}}}}}, nil
	}
	c.on("GET", prefixNetwork, "/{$}", route{open: true, do: doc})
	c.on("GET", prefixNetwork, "/v2.0/{$}", route{do: func(*call) (any, error) { return map[string]any{"resources": []any{}}, nil }})
	c.on("GET", prefixNetwork, "/v2.0/extensions", route{do: listExtensions})
	c.on("GET", prefixNetwork, "/v2.0/extensions/{alias}", route{do: getExtension})
	c.on("GET", prefixNetwork, "/v2.0/agents", route{do: listAgents})
	c.on("GET", prefixNetwork, "/v2.0/network-ip-availabilities", route{do: listAvailability})
	c.networkQuotaRoutes()
	register(c, c.networkCollection())
	register(c, c.subnetCollection())
	register(c, c.portCollection())
	register(c, c.routerCollection())
	c.on("PUT", prefixNetwork, "/v2.0/routers/{id}/add_router_interface", route{do: addInterface})
	c.on("PUT", prefixNetwork, "/v2.0/routers/{id}/remove_router_interface", route{do: removeInterface})
	register(c, c.groupCollection())
	register(c, c.ruleCollection())
	register(c, c.floatingIPCollection())
	if !c.knobs.without["trunk"] {
		register(c, c.trunkCollection())
		c.on("PUT", prefixNetwork, "/v2.0/trunks/{id}/add_subports", route{do: addSubports})
		c.on("PUT", prefixNetwork, "/v2.0/trunks/{id}/remove_subports", route{do: removeSubports})
		c.on("GET", prefixNetwork, "/v2.0/trunks/{id}/get_subports", route{do: getSubports})
	} else {
		c.on("GET", prefixNetwork, "/v2.0/trunks", route{do: func(*call) (any, error) {
			return nil, &apiError{http.StatusNotFound, "The resource could not be found."}
		}})
	}
}

// listAgents shows an admin the agents; anybody else gets an empty list, not a
// refusal.
func listAgents(q *call) (any, error) {
	agents := []any{}
	if q.admin() {
		for kind, binary := range map[string]string{"OVN Controller Gateway agent": "ovn-controller", "OVN Metadata agent": "neutron-ovn-metadata-agent"} {
			agents = append(agents, map[string]any{"id": q.newID(), "agent_type": kind, "binary": binary, "host": "lab", "alive": true, "admin_state_up": true})
		}
	}
	return map[string]any{"agents": agents}, nil
}

type extension struct {
	Alias       string `json:"alias"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Updated     string `json:"updated"`
	Links       []link `json:"links"`
}

// extensions are those of a 2025.1 with ML2/OVN. It lists tag-creation although
// no create call takes tags there; see TagsAtCreation.
func (c *Cloud) extensions() []extension {
	aliases := []string{"address-group", "address-scope", "agent", "allowed-address-pairs", "auto-allocated-topology",
		"availability_zone", "binding", "binding-extended", "default-subnetpools", "dhcp_agent_scheduler", "dns-domain-ports",
		"dns-integration", "dns-integration-domain-keywords", "empty-string-filtering", "ext-gw-mode", "external-gateway-multihoming",
		"external-net", "extra_dhcp_opt", "extraroute", "filter-validation", "fip-port-details", "flavors", "floatingip-pools",
		"l3-flavors", "l3-ha", "multi-provider", "net-mtu", "net-mtu-writable", "network-ip-availability", "network_availability_zone",
		"pagination", "port-device-profile", "port-mac-address-regenerate", "port-resource-request", "port-security", "project-id",
		"provider", "qos", "qos-default", "qos-fip", "qos-port-network-policy", "quota-check-limit", "quota_details", "quotas",
		"rbac-address-scope", "rbac-policies", "rbac-security-groups", "revision-if-match", "router", "router_availability_zone",
		"security-group", "security-groups-default-rules", "security-groups-normalized-cidr", "security-groups-remote-address-group",
		"security-groups-rules-belongs-to-default-sg", "security-groups-shared-filtering", "service-type", "sorting",
		"standard-attr-description", "standard-attr-revisions", "standard-attr-tag", "standard-attr-timestamp",
		"stateful-security-group", "subnet-dns-publish-fixed-ip", "subnet-external-network", "subnet-service-types",
		"subnet_allocation", "subnetpool-prefix-ops", "tag-creation", "trunk", "trunk-details"}
	for a := range c.knobs.with {
		aliases = append(aliases, a)
	}
	slices.Sort(aliases)
	aliases = slices.Compact(aliases)
	var list []extension
	for _, a := range aliases {
		if !c.knobs.without[a] {
			list = append(list, extension{Alias: a, Name: a, Updated: "2015-01-01T00:00:00-00:00", Links: []link{}})
		}
	}
	return list
}

func listExtensions(q *call) (any, error) { return map[string]any{"extensions": q.extensions()}, nil }

func getExtension(q *call) (any, error) {
	for _, e := range q.extensions() {
		if e.Alias == q.PathValue("alias") {
			return map[string]any{"extension": e}, nil
		}
	}
	return nil, neutron(http.StatusNotFound, "ExtensionNotFound", "Extensions not found: %s.", q.PathValue("alias"))
}
