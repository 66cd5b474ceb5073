package cloud

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// buildGuest makes the servers' image: one file system on a whole disk, and the kernel and initrd with which QEMU boots it.
// User-mode Linux brings its own kernel and finds its modules in the image.
func (l *Lab) buildGuest(ctx context.Context, to layer, imageID, kernelDir string) error {
	if err := to.begin(); err != nil {
		return err
	}
	root := filepath.Join(to.partial(), "root")
	files := filepath.Join(to.partial(), "files")
	// Before the kernel's package makes its initrd.
	for name, place := range map[string]string{"guest/initramfs.conf": "etc/initramfs-tools/conf.d/lab", "guest/initramfs-modules": "usr/share/initramfs-tools/modules.d/lab"} {
		if err := putStatic(files, name, place, 0o644); err != nil {
			return err
		}
	}
	if err := l.bootstrap(ctx, "guest", root, guestPackages(), []string{fmt.Sprintf("sync-in '%s' /", files)}); err != nil {
		return err
	}
	if err := l.configureGuest(ctx, root, kernelDir); err != nil {
		return err
	}
	if err := moveOne(filepath.Join(root, "boot/vmlinuz-*"), filepath.Join(to.partial(), "vmlinuz")); err != nil {
		return err
	}
	if err := moveOne(filepath.Join(root, "boot/initrd.img-*"), filepath.Join(to.partial(), "initrd.img")); err != nil {
		return err
	}
	disk := filepath.Join(to.partial(), imageID+".raw")
	f, err := os.OpenFile(disk, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Truncate(disk, guestDiskGiB<<30); err != nil {
		return err
	}
	// A journal, because a server that is killed must start again; no checksums, which cost more than they find here.
	if err := l.tool(ctx, "guest", "mkfs.ext4", "-q", "-F", "-O", "^metadata_csum", "-d", root, disk); err != nil {
		return err
	}
	for _, rest := range []string{root, files} {
		if err := os.RemoveAll(rest); err != nil {
			return err
		}
	}
	return to.complete()
}

func (l *Lab) configureGuest(ctx context.Context, root, kernelDir string) error {
	for name, place := range map[string]string{
		"guest/99-lab.cfg":          "etc/cloud/cloud.cfg.d/99-lab.cfg",
		"guest/90-dhcp.network":     "etc/systemd/network/90-dhcp.network",
		"guest/uml-cpuinfo.service": "etc/systemd/system/uml-cpuinfo.service",
		"guest/sshd.conf":           "etc/ssh/sshd_config.d/lab.conf",
		"guest/system.conf":         "etc/systemd/system.conf.d/lab.conf",
		"guest/udev-trigger.conf":   "etc/systemd/system/systemd-udev-trigger.service.d/lab.conf",
		"guest/dhcpcd.conf":         "etc/dhcpcd.conf",
		"guest/70-uml-net.rules":    "etc/udev/rules.d/70-uml-net.rules",
	} {
		if err := putStatic(root, name, place, 0o644); err != nil {
			return err
		}
	}
	// The kernel's command line mounts the root; a resolv.conf of the building host would cost every lookup its timeout.
	for _, name := range []string{"etc/fstab", "etc/resolv.conf", "etc/machine-id"} {
		if err := os.RemoveAll(filepath.Join(root, name)); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o644); err != nil {
			return err
		}
	}
	for _, pattern := range []string{"etc/ssh/ssh_host_*", "var/cache/apt/archives/*.deb", "boot/System.map*"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	for _, name := range maskedUnits() {
		path := filepath.Join(root, "etc/systemd/system", name)
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := os.Symlink("/dev/null", path); err != nil {
			return err
		}
	}
	if err := l.tool(ctx, "guest", "chroot", root, "systemctl", "enable", "systemd-networkd.service", "ssh.service", "uml-cpuinfo.service"); err != nil {
		return err
	}
	if kernelDir == "" {
		return nil
	}
	modules := filepath.Join(kernelDir, "modules")
	versions, err := os.ReadDir(modules)
	if err != nil {
		return err
	}
	for _, v := range versions {
		if err := os.CopyFS(filepath.Join(root, "usr/lib/modules", v.Name()), os.DirFS(filepath.Join(modules, v.Name()))); err != nil {
			return err
		}
		if err := l.tool(ctx, "guest", "chroot", root, "depmod", v.Name()); err != nil {
			return err
		}
	}
	return nil
}

// moveOne renames the one file that matches.
func moveOne(pattern, to string) error {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	if len(paths) != 1 {
		return fmt.Errorf("looking for %s: %d files match", pattern, len(paths))
	}
	return os.Rename(paths[0], to)
}
