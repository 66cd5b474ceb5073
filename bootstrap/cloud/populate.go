package cloud

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	computequotas "github.com/gophercloud/gophercloud/v2/openstack/compute/v2/quotasets"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/endpoints"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/projects"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/roles"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/services"
	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/users"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/external"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/provider"
	networkquotas "github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/quotas"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
)

// What every lab offers to the user demo.
const (
	imageName     = "debian-13"
	publicName    = "public"
	publicCIDR    = "172.24.4.0/24"
	publicGateway = "172.24.4.1"
	region        = "RegionOne"
	unlimited     = -1
)

// admin logs in with the administrator's password.
func (s *supervisor) admin(ctx context.Context) (*gophercloud.ProviderClient, error) {
	return openstack.AuthenticatedClient(ctx, gophercloud.AuthOptions{
		IdentityEndpoint: fmt.Sprintf("http://%s:5000/v3", Address), Username: "admin", Password: s.Secrets.Cloud.AdminPassword,
		DomainName: "Default", Scope: &gophercloud.AuthScope{ProjectName: "admin", DomainName: "Default"},
	})
}

// populateIdentity makes the services' users and endpoints, the project and user demo, and Octavia's roles. It runs once, in an
// empty Keystone.
func (s *supervisor) populateIdentity(ctx context.Context) error {
	p, err := s.admin(ctx)
	if err != nil {
		return err
	}
	c, err := openstack.NewIdentityV3(p, gophercloud.EndpointOpts{Region: region})
	if err != nil {
		return err
	}
	role := map[string]string{}
	page, err := roles.List(c, nil).AllPages(ctx)
	if err != nil {
		return err
	}
	existing, err := roles.ExtractRoles(page)
	if err != nil {
		return err
	}
	for _, r := range existing {
		role[r.Name] = r.ID
	}
	for _, name := range []string{"member", "service", "load-balancer_member", "load-balancer_admin", "load-balancer_observer"} {
		if role[name] != "" {
			continue
		}
		r, err := roles.Create(ctx, c, roles.CreateOpts{Name: name}).Extract()
		if err != nil {
			return fmt.Errorf("creating role %s: %w", name, err)
		}
		role[name] = r.ID
	}
	account := func(projectID, user, password string, names ...string) error {
		u, err := users.Create(ctx, c, users.CreateOpts{Name: user, Password: password, DomainID: "default"}).Extract()
		if err != nil {
			return fmt.Errorf("creating user %s: %w", user, err)
		}
		for _, name := range names {
			if err := roles.Assign(ctx, c, role[name], roles.AssignOpts{UserID: u.ID, ProjectID: projectID}).ExtractErr(); err != nil {
				return fmt.Errorf("giving role %s to user %s: %w", name, user, err)
			}
		}
		return nil
	}
	project := map[string]string{}
	for _, name := range []string{"service", "demo"} {
		made, err := projects.Create(ctx, c, projects.CreateOpts{Name: name, DomainID: "default"}).Extract()
		if err != nil {
			return fmt.Errorf("creating project %s: %w", name, err)
		}
		project[name] = made.ID
	}
	for _, name := range serviceUsers() {
		if err := account(project["service"], name, s.Secrets.Cloud.ServicePasswords[name], "admin", "service"); err != nil {
			return err
		}
	}
	if err := account(project["demo"], "demo", s.Secrets.Cloud.DemoPassword, "member", "load-balancer_member"); err != nil {
		return err
	}
	return populateCatalog(ctx, c)
}

func populateCatalog(ctx context.Context, c *gophercloud.ServiceClient) error {
	for _, e := range []struct{ kind, name, path string }{
		{"compute", "nova", ":8774/v2.1"}, {"image", "glance", ":9292"}, {"network", "neutron", ":9696"},
		{"placement", "placement", ":8778"}, {"load-balancer", "octavia", ":9876"},
	} {
		service, err := services.Create(ctx, c, services.CreateOpts{Type: e.kind, Extra: map[string]any{"name": e.name}}).Extract()
		if err != nil {
			return fmt.Errorf("creating service %s: %w", e.name, err)
		}
		for _, side := range []gophercloud.Availability{gophercloud.AvailabilityPublic, gophercloud.AvailabilityInternal, gophercloud.AvailabilityAdmin} {
			opts := endpoints.CreateOpts{Availability: side, Name: e.name, Region: region, ServiceID: service.ID, URL: "http://" + Address + e.path}
			if _, err := endpoints.Create(ctx, c, opts).Extract(); err != nil {
				return fmt.Errorf("creating the endpoint of %s: %w", e.name, err)
			}
		}
	}
	return nil
}

// populateImages uploads the guest: a whole-disk image for all ways to run servers, and beside it Debian's kernel and initrd,
// which libvirt needs because the disk has no boot loader.
func (s *supervisor) populateImages(ctx context.Context) error {
	p, err := s.admin(ctx)
	if err != nil {
		return err
	}
	c, err := openstack.NewImageV2(p, gophercloud.EndpointOpts{Region: region})
	if err != nil {
		return err
	}
	kernel, err := uploadImage(ctx, c, images.CreateOpts{Name: imageName + "-kernel", DiskFormat: "aki", ContainerFormat: "aki"}, filepath.Join(guestPlace, "vmlinuz"))
	if err != nil {
		return err
	}
	initrd, err := uploadImage(ctx, c, images.CreateOpts{Name: imageName + "-initrd", DiskFormat: "ari", ContainerFormat: "ari"}, filepath.Join(guestPlace, "initrd.img"))
	if err != nil {
		return err
	}
	disk := "/var/tmp/guest.qcow2"
	defer os.Remove(disk)
	if err := s.children.run(ctx, s.command("images", "qemu-img", "convert", "-f", "raw", "-O", "qcow2", filepath.Join(guestPlace, s.ImageID+".raw"), disk)); err != nil {
		return err
	}
	_, err = uploadImage(ctx, c, images.CreateOpts{ID: s.ImageID, Name: imageName, DiskFormat: "qcow2", ContainerFormat: "bare", MinDisk: guestDiskGiB, MinRAM: 256, Properties: map[string]string{
		"kernel_id": kernel, "ramdisk_id": initrd, "hw_rng_model": "virtio", "hw_video_model": "none", "hw_vif_model": "virtio",
		"os_distro": "debian", "os_version": "13", "os_type": "linux", "os_admin_user": "debian",
		"os_command_line": "root=/dev/vda rw console=ttyS0 mitigations=off quiet systemd.show_status=false random.trust_cpu=on net.ifnames=0",
	}}, disk)
	return err
}

func uploadImage(ctx context.Context, c *gophercloud.ServiceClient, opts images.CreateOpts, path string) (id string, err error) {
	public := images.ImageVisibilityPublic
	opts.Visibility = &public
	image, err := images.Create(ctx, c, opts).Extract()
	if err != nil {
		return "", fmt.Errorf("creating image %s: %w", opts.Name, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := imagedata.Upload(ctx, c, image.ID, f).ExtractErr(); err != nil {
		return "", fmt.Errorf("uploading image %s: %w", opts.Name, err)
	}
	return image.ID, nil
}

// populateFlavors makes the sizes that a Kubernetes node can live in, and lifts demo's compute quotas.
func (s *supervisor) populateFlavors(ctx context.Context) error {
	p, err := s.admin(ctx)
	if err != nil {
		return err
	}
	c, err := openstack.NewComputeV2(p, gophercloud.EndpointOpts{Region: region})
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name                 string
		ramMiB, vcpus, diskG int
	}{{"m1.small", 2048, 1, 10}, {"m1.medium", 3072, 2, 15}, {"m1.large", 4096, 4, 20}} {
		if _, err := flavors.Create(ctx, c, flavors.CreateOpts{Name: f.name, RAM: f.ramMiB, VCPUs: f.vcpus, Disk: &f.diskG}).Extract(); err != nil {
			return fmt.Errorf("creating flavor %s: %w", f.name, err)
		}
	}
	demo, err := demoProject(ctx, p)
	if err != nil {
		return err
	}
	all := unlimited
	_, err = computequotas.Update(ctx, c, demo, computequotas.UpdateOpts{Instances: &all, Cores: &all, RAM: &all}).Extract()
	if err != nil {
		return fmt.Errorf("lifting the compute quotas of demo: %w", err)
	}
	return nil
}

// populateNetwork makes the external network and lifts demo's port quota.
func (s *supervisor) populateNetwork(ctx context.Context) error {
	p, err := s.admin(ctx)
	if err != nil {
		return err
	}
	c, err := openstack.NewNetworkV2(p, gophercloud.EndpointOpts{Region: region})
	if err != nil {
		return err
	}
	outside, noDHCP, gateway := true, false, publicGateway
	n, err := networks.Create(ctx, c, provider.CreateOptsExt{
		CreateOptsBuilder: external.CreateOptsExt{CreateOptsBuilder: networks.CreateOpts{Name: publicName}, External: &outside},
		Segments:          []provider.Segment{{NetworkType: "flat", PhysicalNetwork: "physnet1"}},
	}).Extract()
	if err != nil {
		return fmt.Errorf("creating network %s: %w", publicName, err)
	}
	_, err = subnets.Create(ctx, c, subnets.CreateOpts{
		NetworkID: n.ID, Name: publicName, IPVersion: gophercloud.IPv4, CIDR: publicCIDR, GatewayIP: &gateway, EnableDHCP: &noDHCP,
		AllocationPools: []subnets.AllocationPool{{Start: "172.24.4.10", End: "172.24.4.250"}},
	}).Extract()
	if err != nil {
		return fmt.Errorf("creating the subnet of %s: %w", publicName, err)
	}
	demo, err := demoProject(ctx, p)
	if err != nil {
		return err
	}
	all := unlimited
	if _, err := networkquotas.Update(ctx, c, demo, networkquotas.UpdateOpts{Port: &all}).Extract(); err != nil {
		return fmt.Errorf("lifting the port quota of demo: %w", err)
	}
	return nil
}

func demoProject(ctx context.Context, p *gophercloud.ProviderClient) (id string, err error) {
	c, err := openstack.NewIdentityV3(p, gophercloud.EndpointOpts{Region: region})
	if err != nil {
		return "", err
	}
	page, err := projects.List(c, projects.ListOpts{Name: "demo"}).AllPages(ctx)
	if err != nil {
		return "", err
	}
	found, err := projects.ExtractProjects(page)
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("finding project demo: %d found", len(found))
	}
	return found[0].ID, nil
}
