package openstacktest_test

import (
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/kuryrctl/kuryrctl/internal/openstacktest"
)

func TestAServerBootsFromAVolumeThatGoesWithIt(t *testing.T) {
	c := openstacktest.New(t, openstacktest.VolumeTypes("ssd"))
	k := connect(t, c, "fake")
	n := k.net("n")
	k.subnet(n.ID, "10.0.0.0/24")
	c.Set("flavor", "m1.small", "disk", 0)
	body := func(disk object) object {
		s := object{"name": "a", "flavorRef": k.flavorID("m1.small"), "networks": []object{{"uuid": n.ID}}}
		if disk == nil {
			s["imageRef"] = k.imageID()
			return object{"server": s}
		}
		disk["boot_index"], disk["source_type"], disk["destination_type"], disk["uuid"], disk["delete_on_termination"] = 0, "image", "volume", k.imageID(), true
		s["block_device_mapping_v2"] = []object{disk}
		return object{"server": s}
	}
	novaRefused(t, k.do(k.compute, "POST", "servers", body(nil), nil), 403, "Only volume-backed servers")
	novaRefused(t, k.do(k.compute, "POST", "servers", body(object{}), nil), 400, "non-zero size")
	novaRefused(t, k.do(k.compute, "POST", "servers", body(object{"volume_size": 1}), nil), 400, "smaller than the minimum size")
	novaRefused(t, k.do(k.compute, "POST", "servers", body(object{"volume_size": 20, "volume_type": "hdd"}), nil), 400, "volume type hdd could not be found")
	var made struct{ Server struct{ ID string } }
	must(t, k.do(k.compute, "POST", "servers", body(object{"volume_size": 20, "volume_type": "ssd"}), &made))
	k.becomes(made.Server.ID, "ACTIVE")
	s, err := servers.Get(t.Context(), k.compute, made.Server.ID).Extract()
	must(t, err)
	if len(s.AttachedVolumes) != 1 || s.Image != nil || !c.Has("volume", s.AttachedVolumes[0].ID) {
		t.Errorf("volumes %v, image %v", s.AttachedVolumes, s.Image)
	}
	must(t, servers.Delete(t.Context(), k.compute, made.Server.ID).ExtractErr())
	c.Settle()
	if c.Has("volume", s.AttachedVolumes[0].ID) {
		t.Error("the volume has outlived its server")
	}
}
