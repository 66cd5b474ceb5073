package provision

import (
	"context"
	"fmt"

	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumetypes"

	"github.com/kuryrctl/kuryrctl/internal/openstack"
)

// RootVolume is a disk of Cinder's for a server to boot from. Nova makes it of the image, and deletes it with the server; it carries no mark.
type RootVolume struct {
	Size int    // GB; 0 is none: the server boots from its flavor's disk
	Type string // of Cinder's, name or id; "" is the cloud's default
}

var volumeTypeCollection = collection{service: (*openstack.Cloud).Volumes, path: "types", one: "volume_type", many: "volume_types"}

// typedVolumes is the microversion (2.N) that lets Nova make volumes of a type.
const typedVolumes = 67

// CanBoot reports as an error why the cloud cannot boot a server from the volume, or nil.
func (s *Session) CanBoot(ctx context.Context, v RootVolume) error {
	if _, err := s.Cloud.Volumes(); err != nil || v.Type == "" {
		return err
	}
	all, err := list[volumetypes.VolumeType](ctx, s.Cloud, volumeTypeCollection, nil)
	if err != nil {
		return err
	}
	if _, err := choose("volume type", v.Type, all, func(x volumetypes.VolumeType) (string, string) { return x.Name, x.ID }); err != nil {
		return err
	}
	if newest := s.computeVersion(ctx); newest < typedVolumes {
		return fmt.Errorf("the newest microversion of this Nova is 2.%d, and it makes volumes of a type since 2.%d: name no type", newest, typedVolumes)
	}
	return nil
}

// mapping is the volume as a request to Nova says it.
func (v RootVolume) mapping(image string) []map[string]any {
	disk := map[string]any{"boot_index": 0, "source_type": "image", "uuid": image, "destination_type": "volume", "volume_size": v.Size,
		"delete_on_termination": true}
	if v.Type != "" {
		disk["volume_type"] = v.Type
	}
	return []map[string]any{disk}
}
