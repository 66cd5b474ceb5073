package openstacktest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// serverRequest is the body of POST /servers. A field is refused before the
// microversion that brought it.
type serverRequest struct {
	Name           string            `json:"name" api:"c"`
	Image          string            `json:"imageRef" api:"c"`
	Flavor         string            `json:"flavorRef" api:"c"`
	Networks       json.RawMessage   `json:"networks" api:"c"`
	KeyName        *string           `json:"key_name" api:"c"`
	UserData       string            `json:"user_data" api:"c"`
	Metadata       map[string]string `json:"metadata" api:"c"`
	ConfigDrive    bool              `json:"config_drive" api:"c"`
	Zone           string            `json:"availability_zone" api:"c"`
	SecurityGroups []map[string]any  `json:"security_groups" api:"c"`
	AdminPass      string            `json:"adminPass" api:"c"`
	DiskConfig     string            `json:"OS-DCF:diskConfig" api:"c"`
	Min            int               `json:"min_count" api:"c"`
	Max            int               `json:"max_count" api:"c"`
	Description    *string           `json:"description" api:"c"`
	Tags           []string          `json:"tags" api:"c"`
	Hostname       string            `json:"hostname" api:"c"`
	Disks          []json.RawMessage `json:"block_device_mapping_v2" api:"c"`
}

type serverNIC struct {
	Port    string `json:"port"`
	UUID    string `json:"uuid"`
	FixedIP string `json:"fixed_ip"`
	Tag     string `json:"tag"`
}

func createServer(q *call) (any, error) {
	f, err := q.object("server")
	if err != nil {
		return nil, err
	}
	var want serverRequest
	refused, err := assign(&want, f, atCreate)
	for key, since := range map[string]int{"description": 19, "tags": 52, "hostname": 90} {
		if f.has(key) && !q.since(since) {
			refused = append(refused, key)
		}
	}
	if len(refused) > 0 || err != nil {
		q.misuse("bad server: %v %v", refused, err)
		return nil, nova(http.StatusBadRequest, "Additional properties are not allowed ('%s' was unexpected)", strings.Join(refused, "', '"))
	}
	if want.Max > 1 {
		q.misuse("more than one server in a request is not modelled")
	}
	disk, err := q.bootVolume(&want)
	if err != nil {
		return nil, err
	}
	fl, err := q.checkServer(want)
	if err != nil {
		return nil, err
	}
	for _, r := range []struct {
		name string
		n    int
	}{{"instances", 1}, {"cores", fl.VCPUs}, {"ram", fl.RAM}} {
		if p := q.who.ProjectID; q.exceeds("compute", r.name, p, r.n) {
			return nil, nova(http.StatusForbidden, "Quota exceeded for %s: Requested %d, but already used %d of %d %s",
				r.name, r.n, q.used("compute", r.name, p), q.limit("compute", r.name, p), r.name)
		}
	}
	s := &server{Name: want.Name, Status: "BUILD", KeyName: want.KeyName, Metadata: want.Metadata, Tags: want.Tags, UserData: want.UserData, Hostname: want.Hostname,
		Description: want.Description, ConfigDrive: want.ConfigDrive, Zone: want.Zone, Created: stamp(), Updated: stamp(), imageID: want.Image, disk: disk, userID: q.who.UserID, flavor: fl}
	s.ID, s.ProjectID = q.newID(), q.who.ProjectID
	if s.Metadata == nil {
		s.Metadata = map[string]string{}
	}
	if s.Tags == nil {
		s.Tags = []string{}
	}
	if s.Zone == "" {
		s.Zone = q.knobs.computeZones[0]
	}
	if s.group, err = q.hint(); err != nil {
		return nil, err
	}
	if s.Hostname == "" {
		s.Hostname = strings.ToLower(strings.NewReplacer("/", "-", "_", "-", ".", "-").Replace(s.Name))
	}
	if err := q.checkNetworks(s, want.Networks); err != nil {
		return nil, err
	}
	task := "scheduling"
	s.TaskState = &task
	q.compute.servers.add(s)
	q.later(s, func() { q.Cloud.boot(s) })
	return map[string]any{"server": map[string]any{"id": s.ID, "adminPass": "x", "OS-DCF:diskConfig": "MANUAL", "security_groups": []any{map[string]string{"name": "default"}},
		"links": []link{{"self", q.server.URL + prefixCompute + "/v2.1/servers/" + s.ID}}}}, nil
}

func (q *call) checkServer(want serverRequest) (*flavor, error) {
	if want.Name == "" || len(want.Name) > 255 {
		return nil, nova(http.StatusBadRequest, "Invalid input for field/attribute name.")
	}
	fl, ok := q.compute.flavors.get(want.Flavor)
	if !ok {
		return nil, nova(http.StatusBadRequest, "Flavor %s could not be found.", want.Flavor)
	}
	i, ok := q.images.get(want.Image)
	if !ok || !i.sees(q) {
		return nil, nova(http.StatusBadRequest, "Can not find requested image")
	}
	if i.Status != "active" {
		return nil, nova(http.StatusBadRequest, "Image %s is unacceptable: Image is not active.", i.ID)
	}
	if volume := len(want.Disks) > 0; fl.Disk == 0 && !volume && !q.admin() {
		return nil, nova(http.StatusForbidden, "Only volume-backed servers are allowed for flavors with zero disk.")
	} else if fl.Disk > 0 && fl.Disk < i.MinDisk && !volume {
		return nil, nova(http.StatusBadRequest, "Flavor's disk is too small for requested image.")
	}
	if fl.RAM < i.MinRAM {
		return nil, nova(http.StatusBadRequest, "Flavor's memory is too small for requested image.")
	}
	if want.KeyName != nil && !q.compute.keypairs.any(func(k *keypair) bool { return k.Name == *want.KeyName && k.UserID == q.who.UserID }) {
		return nil, nova(http.StatusBadRequest, "Invalid key_name provided.")
	}
	if want.Zone != "" && !slices.Contains(q.knobs.computeZones, want.Zone) {
		return nil, nova(http.StatusBadRequest, "The requested availability zone is not available")
	}
	if err := validUserData(want.UserData); err != nil {
		q.misuse("user_data: %v", err)
		return nil, nova(http.StatusBadRequest, "Invalid input for field/attribute user_data. %v", err)
	}
	return fl, q.checkMetadata(want.Metadata)
}

// checkNetworks resolves the request's networks to ports.
func (q *call) checkNetworks(s *server, raw json.RawMessage) error {
	var nics []serverNIC
	if err := json.Unmarshal(raw, &nics); err != nil || len(nics) == 0 {
		q.misuse("networks %s is not a list of ports or networks", raw)
		return nova(http.StatusBadRequest, "Invalid input for field/attribute networks.")
	}
	for _, nic := range nics {
		if nic.Port == "" {
			p, err := q.novaPort(nic)
			if err != nil {
				return err
			}
			s.ports, s.made = append(s.ports, p.ID), append(s.made, p.ID)
			continue
		}
		p, ok := q.network.ports.get(nic.Port)
		if !ok || p.ProjectID != q.who.ProjectID && !q.admin() {
			return nova(http.StatusBadRequest, "Port id %s could not be found.", nic.Port)
		}
		if slices.Contains(s.ports, p.ID) {
			return nova(http.StatusBadRequest, "Port ID '%s' was specified twice: you cannot attach a port multiple times.", p.ID)
		}
		if p.DeviceID != "" {
			return nova(http.StatusConflict, "Port %s is still in use.", p.ID)
		}
		if len(p.FixedIPs) == 0 {
			return nova(http.StatusBadRequest, "Port %s requires a FixedIP in order to be used.", p.ID)
		}
		s.ports = append(s.ports, p.ID)
	}
	return nil
}

// novaPort makes the port of a server that was given only a network.
func (q *call) novaPort(nic serverNIC) (*port, error) {
	n, ok := q.network.networks.get(nic.UUID)
	if !ok || n.ProjectID != q.who.ProjectID && !q.admin() && !n.Shared {
		return nil, nova(http.StatusBadRequest, "Network %s could not be found.", nic.UUID)
	}
	if q.exceeds("network", "port", q.who.ProjectID, 1) {
		return nil, nova(http.StatusForbidden, "Maximum number of ports exceeded")
	}
	p := q.newPort(n.ID, q.who.ProjectID)
	p.Groups = []string{q.defaultGroup(q.who.ProjectID).ID}
	var wanted []fixedIP
	if nic.FixedIP != "" {
		wanted = []fixedIP{{Address: nic.FixedIP}}
	}
	var err error
	if p.FixedIPs, err = q.allocate(n.ID, wanted, nil); err != nil {
		return nil, nova(http.StatusBadRequest, "No fixed IP addresses available for network: %s", n.ID)
	}
	q.network.ports.add(p)
	return p, nil
}

// boot ends BUILD: the ports are bound and come up, or the server is in ERROR.
func (c *Cloud) boot(s *server) {
	s.TaskState, s.Updated = nil, stamp()
	for _, id := range s.ports {
		p, ok := c.network.ports.get(id)
		if ok && p.DeviceID == "" {
			continue
		}
		message := "Port " + id + " could not be found."
		if ok {
			message = "Port " + id + " is still in use."
		}
		s.Status, s.Fault = "ERROR", &serverFault{500, "Build of instance " + s.ID + " aborted: " + message, stamp()}
		return
	}
	if s.disk != nil && !c.makeVolume(s) {
		s.Status, s.Fault = "ERROR", &serverFault{500, "Build of instance " + s.ID + " aborted: VolumeSizeExceedsAvailableQuota", stamp()}
		return
	}
	if !c.place(s) {
		s.Status = "ERROR" // "No valid host was found."
		return
	}
	s.Status = "ACTIVE"
	for _, id := range s.ports {
		p, _ := c.network.ports.get(id)
		p.DeviceID, p.DeviceOwner, p.Status = s.ID, ownerCompute, "ACTIVE"
		touch(p)
		if t, ok := c.trunkOf(p.ID); ok {
			c.wire(t, p)
		}
	}
}

// unbind frees what a server has: ports that it was given stay, those that Nova made go.
func (c *Cloud) unbind(s *server) {
	c.dropVolume(s)
	for _, id := range s.ports {
		p, ok := c.network.ports.get(id)
		if !ok || p.DeviceID != s.ID && !slices.Contains(s.made, id) {
			continue
		}
		p.DeviceID, p.DeviceOwner, p.Status = "", "", "DOWN"
		touch(p)
		if t, ok := c.trunkOf(p.ID); ok {
			t.Status = "DOWN"
			c.wire(t, p)
		}
		if slices.Contains(s.made, id) {
			c.vanish(p)
		}
	}
}
