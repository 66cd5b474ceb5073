package openstacktest

import (
	"encoding/json"
	"net/http"
)

// volumeType is one of Cinder's.
type volumeType struct {
	base
	Name string `json:"name"`
}

// volume is the disk of a server, which Nova has made of an image.
type volume struct {
	base
	Name   string `json:"name"`
	Size   int    `json:"size"` // GiB
	Type   string `json:"volume_type"`
	Status string `json:"status"`
}

type volumes struct {
	types   *table[*volumeType]
	volumes *table[*volume]
}

func cinder(status int, _, format string, args ...any) error {
	return nova(status, format, args...) // whose form Cinder has kept
}

func (c *Cloud) volumeRoutes() {
	if len(c.knobs.volumeTypes) == 0 {
		return
	}
	c.on("GET", prefixVolume, "/v3/types", route{do: func(q *call) (any, error) {
		return list(q, "volume_types", "VolumeType", q.volumes.types.where(func(*volumeType) bool { return true }), cinder)
	}})
	c.on("GET", prefixVolume, "/v3/limits", route{do: func(q *call) (any, error) {
		p := q.who.ProjectID
		return map[string]any{"limits": map[string]any{"rate": []any{}, "absolute": map[string]int{
			"maxTotalVolumes": q.limit("block-storage", "volumes", p), "totalVolumesUsed": q.used("block-storage", "volumes", p),
			"maxTotalVolumeGigabytes": q.limit("block-storage", "gigabytes", p), "totalGigabytesUsed": q.used("block-storage", "gigabytes", p),
		}}}, nil
	}})
	c.on("PUT", prefixVolume, "/v3/os-quota-sets/{project}", route{do: func(q *call) (any, error) {
		if !q.admin() {
			return nil, cinder(http.StatusForbidden, "", "Policy doesn't allow volume_extension:quotas:update to be performed.")
		}
		f, err := q.object("quota_set")
		if err != nil {
			return nil, err
		}
		if err := q.setLimits("block-storage", q.PathValue("project"), f); err != nil {
			return nil, err
		}
		return map[string]any{"quota_set": q.limits("block-storage", q.PathValue("project"))}, nil
	}})
}

// blockDevice is a row of block_device_mapping_v2: what is modelled is a volume to boot from, made of an image.
type blockDevice struct {
	BootIndex   *int   `json:"boot_index"`
	Source      string `json:"source_type"`
	Destination string `json:"destination_type"`
	UUID        string `json:"uuid"`
	Size        int    `json:"volume_size"`
	Type        string `json:"volume_type"` // since 2.67
	Dies        bool   `json:"delete_on_termination"`
}

// bootVolume checks the request's disks, and takes the image that the volume is made of for the server's.
func (q *call) bootVolume(want *serverRequest) (*blockDevice, error) {
	if len(want.Disks) == 0 {
		return nil, nil
	}
	bad := func(format string, args ...any) (*blockDevice, error) {
		return nil, nova(http.StatusBadRequest, "Block Device Mapping is Invalid: "+format, args...)
	}
	var d blockDevice
	var raw fields
	if len(want.Disks) != 1 || json.Unmarshal(want.Disks[0], &raw) != nil || json.Unmarshal(want.Disks[0], &d) != nil {
		q.misuse("disks %s are not modelled", want.Disks)
		return bad("%s", want.Disks)
	}
	if raw.has("volume_type") && !q.since(67) {
		q.misuse("volume_type came with 2.67")
		return nil, nova(http.StatusBadRequest, "Additional properties are not allowed ('volume_type' was unexpected)")
	}
	if d.BootIndex == nil || *d.BootIndex != 0 || d.Source != "image" || d.Destination != "volume" {
		q.misuse("disk %s is not modelled", want.Disks[0])
		return bad("Boot sequence for the instance and image/block device mapping combination is not valid.")
	}
	if d.Size <= 0 {
		return bad("Images with destination_type 'volume' need to have a non-zero size specified")
	}
	if len(q.knobs.volumeTypes) == 0 {
		return nil, nova(http.StatusInternalServerError, "Unexpected API Error.") // there is no Cinder to ask
	}
	if d.Type != "" && !q.volumes.types.any(func(x *volumeType) bool { return x.Name == d.Type || x.ID == d.Type }) {
		return bad("The specified volume type %s could not be found.", d.Type)
	}
	if i, ok := q.images.get(d.UUID); ok && d.Size < i.MinDisk {
		return nil, nova(http.StatusBadRequest, "Volume is smaller than the minimum size specified in image metadata. Volume size is %d bytes, minimum size is %d bytes.",
			d.Size<<30, i.MinDisk<<30)
	}
	if want.Image != "" && want.Image != d.UUID {
		return bad("imageRef %s and the disk's image %s", want.Image, d.UUID)
	}
	want.Image = d.UUID
	return &d, nil
}

// makeVolume is what Nova does before a server boots from a volume; it reports whether the quota has room.
func (c *Cloud) makeVolume(s *server) bool {
	d := s.disk
	if c.exceeds("block-storage", "volumes", s.ProjectID, 1) || c.exceeds("block-storage", "gigabytes", s.ProjectID, d.Size) {
		return false
	}
	kind := d.Type
	if kind == "" {
		kind = c.knobs.volumeTypes[0]
	}
	v := &volume{Size: d.Size, Type: kind, Status: "in-use"}
	v.ID, v.ProjectID = c.newID(), s.ProjectID
	c.volumes.volumes.add(v)
	s.volume = v.ID
	return true
}

// dropVolume is what becomes of the volume when its server goes.
func (c *Cloud) dropVolume(s *server) {
	if v, ok := c.volumes.volumes.get(s.volume); ok {
		if v.Status = "available"; s.disk.Dies {
			c.volumes.volumes.drop(v.ID)
		}
	}
}
