"""Nova driver that runs each server as user-mode Linux: an ordinary process with a kernel of its own.

For machines without hardware virtualization, where it is ten times faster than emulation. It needs root, Open vSwitch, and
Linux's clsact, cls_u32 and act_mirred. Everything about a server is in its directory below instances_path, so that nova-compute
may be restarted at any time:

    root.cow      its changes over the image       console.log   its first console
    disk.config   its config drive, if any         boot.json     command line, network devices, console size at the last start
    pid           the outer process: unshare, whose only child is the first process of the guest's PID namespace

Not supported: volumes, snapshots, resize, migration. A guest has one processor whatever its flavor says.
"""
import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import time

from nova.api.metadata import base as instance_metadata
from nova.compute import power_state
import nova.conf
from nova import exception
from nova.objects import fields
from nova.virt import configdrive
from nova.virt import driver
from nova.virt import event
from nova.virt import hardware
from nova.virt import images
import nova.virt.node
from oslo_concurrency import lockutils
from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_log import log as logging
from oslo_service import loopingcall

LOG = logging.getLogger(__name__)
CONF = nova.conf.CONF
CONF.register_opts([
    cfg.StrOpt('kernel', default='/usr/bin/linux.uml'),
    cfg.StrOpt('raw_images', default='', help='directory with raw copies of images, named ID.raw: spares a download'),
    cfg.StrOpt('memory_dir', default='/dev/shm', help='tmpfs, mounted exec, that holds the memory of the guests'),
    cfg.StrOpt('run_dir', default='/run/uml'),
], 'uml')

SOFT_REBOOT_TIMEOUT = 60


def run(*cmd, **kw):
    return processutils.execute(*cmd, **kw)[0]


class UMLDriver(driver.ComputeDriver):
    capabilities = dict(driver.ComputeDriver.capabilities, supports_image_type_raw=True, supports_image_type_qcow2=True,
                        supports_attach_interface=True)

    def init_host(self, host):
        os.makedirs(CONF.uml.run_dir, exist_ok=True)
        os.makedirs(self._dir('_base'), exist_ok=True)
        # Servers that are meant to run, by the process that runs them.
        self._watched = {u: p for u in self.list_instance_uuids() if (p := self._pid(u))}
        timer = loopingcall.FixedIntervalLoopingCall(self._watch)
        timer.start(interval=0.5, initial_delay=1, stop_on_exception=False)

    # State

    def _dir(self, uuid, *names):
        return os.path.join(CONF.instances_path, uuid, *names)

    def _pid(self, uuid):
        with contextlib.suppress(OSError, ValueError):
            with open(self._dir(uuid, 'pid')) as f:
                pid = int(f.read())
            with open('/proc/%d/cmdline' % pid) as f:  # the number may belong to somebody else by now
                return pid if 'umid=' + uuid in f.read() else None

    def list_instance_uuids(self):
        return [u for u in os.listdir(CONF.instances_path) if os.path.exists(self._dir(u, 'console.log'))]

    list_instances = list_instance_uuids

    def instance_exists(self, instance):
        return os.path.exists(self._dir(instance.uuid, 'console.log'))

    def get_num_instances(self):
        return len(self.list_instance_uuids())

    def get_info(self, instance, use_cache=True):
        if not self.instance_exists(instance):
            raise exception.InstanceNotFound(instance_id=instance.uuid)
        state = power_state.RUNNING if self._pid(instance.uuid) else power_state.SHUTDOWN
        return hardware.InstanceInfo(state=state)

    def _lock(self, uuid):
        return lockutils.lock('uml-' + uuid)

    def _watch(self):
        # Ends inside a guest: a reboot starts it again, a power-off or a crash is reported to Nova at once.
        for uuid, pid in list(self._watched.items()):
            if self._pid(uuid) == pid:
                continue
            with self._lock(uuid):
                if self._watched.get(uuid) != pid:  # the driver's own doing
                    continue
                del self._watched[uuid]
                if b'reboot: Restarting system' in self._console(uuid):
                    self._boot(uuid)
                    continue
            LOG.info('guest %s has ended', uuid)
            self.emit_event(event.LifecycleEvent(uuid, event.EVENT_LIFECYCLE_STOPPED))

    def _console(self, uuid):
        # What this boot has printed.
        with contextlib.suppress(OSError), open(self._dir(uuid, 'console.log'), 'rb') as f:
            f.seek(self._load(uuid)['console'])
            return f.read()
        return b''

    def _load(self, uuid):
        with open(self._dir(uuid, 'boot.json')) as f:
            return json.load(f)

    def _store(self, uuid, boot):
        path = self._dir(uuid, 'boot.json')
        with open(path + '.new', 'w') as f:
            json.dump(boot, f)
        os.rename(path + '.new', path)

    # The host

    def get_available_nodes(self, refresh=False):
        return [CONF.host]

    def get_host_ip_addr(self):
        return CONF.my_ip

    def get_host_uptime(self):
        return run('uptime')

    def _totals(self):
        disk = os.statvfs(CONF.instances_path)
        with open('/proc/meminfo') as f:
            memory = {k: int(v.split()[0]) >> 10 for k, v in (line.split(':') for line in f)}
        return memory, disk.f_frsize * disk.f_blocks >> 30, disk.f_frsize * disk.f_bavail >> 30

    def get_available_resource(self, nodename):
        memory, disk, free = self._totals()
        return dict(uuid=nova.virt.node.get_local_node_uuid(), vcpus=os.cpu_count(), vcpus_used=0, memory_mb=memory['MemTotal'],
                    memory_mb_used=memory['MemTotal'] - memory['MemAvailable'], local_gb=disk, local_gb_used=disk - free,
                    disk_available_least=free, hypervisor_type='uml', hypervisor_version=7002, hypervisor_hostname=nodename,
                    cpu_info='{}', numa_topology=None,
                    supported_instances=[(fields.Architecture.X86_64, fields.HVType.UML, fields.VMMode.UML)])

    def update_provider_tree(self, provider_tree, nodename, allocations=None):
        memory, disk, _ = self._totals()
        ratios = self._get_allocation_ratios(provider_tree.data(nodename).inventory)
        totals = {'VCPU': max(os.cpu_count(), 8), 'MEMORY_MB': memory['MemTotal'], 'DISK_GB': disk}
        provider_tree.update_inventory(nodename, {
            rc: dict(total=total, min_unit=1, max_unit=total, step_size=1, reserved=0, allocation_ratio=ratios[rc])
            for rc, total in totals.items()})

    # Network: one port of the integration bridge for each VIF. OVN does the rest.

    @staticmethod
    def _names(vif):
        return vif['devname'], 'umv' + vif['id'][:11], 'umt' + vif['id'][:11]

    def plug_vifs(self, instance, network_info):
        # Open vSwitch's userspace datapath reads devices through AF_PACKET without offload headers, so that partial checksums and
        # unsegmented frames of a guest would be lost. So the guest's tap is not the port: frames are redirected between it and a
        # veth pair that offers no offloads, and the kernel completes them on the way.
        for vif in network_info:
            port, peer, tap = self._names(vif)
            mtu = str(vif['network'].get_meta('mtu') or 1500)
            if not os.path.exists('/sys/class/net/' + tap):
                run('ip', 'link', 'del', port, check_exit_code=False)  # half of a plugging that was cut off
                run('ip', '-batch', '-', process_input='\n'.join((
                    'tuntap add %s mode tap' % tap, 'link add %s mtu %s type veth peer name %s mtu %s' % (port, mtu, peer, mtu),
                    'link set %s mtu %s' % (tap, mtu), '')))
                run('tc', '-batch', '-', process_input=''.join(
                    'qdisc add dev %s clsact\nfilter add dev %s ingress protocol all u32 match u32 0 0 action mirred egress '
                    'redirect dev %s\n' % (dev, dev, to) for dev, to in ((tap, peer), (peer, tap))))
                for dev in (port, peer):
                    run('ethtool', '-K', dev, 'tx', 'off', 'tso', 'off', 'gso', 'off', check_exit_code=False)
                for dev in (port, peer, tap):
                    with contextlib.suppress(OSError), open('/proc/sys/net/ipv6/conf/%s/disable_ipv6' % dev, 'w') as f:
                        f.write('1')
                run('ip', '-batch', '-', process_input=''.join('link set %s up\n' % dev for dev in (port, peer, tap)))
            bridge = vif['details'].get('bridge_name') or vif['network']['bridge'] or 'br-int'
            run('ovs-vsctl', '--timeout=30', '--may-exist', 'add-port', bridge, port, '--', 'set', 'interface', port,
                'external_ids:iface-id=' + vif['id'], 'external_ids:iface-status=active',
                'external_ids:attached-mac="%s"' % vif['address'], 'external_ids:vm-uuid=' + instance.uuid)

    def unplug_vifs(self, instance, network_info):
        for vif in network_info or []:
            port, _, tap = self._names(vif)
            run('ovs-vsctl', '--timeout=30', '--if-exists', 'del-port', port)
            for dev in (port, tap):  # the pair goes with its end
                run('ip', 'link', 'del', dev, check_exit_code=False)

    def _device(self, vif):
        # The MTU is said here: networkd in the guest ignores DHCP's.
        return 'transport=tap,ifname=%s,mac=%s,mtu=%d,depth=64' % (
            self._names(vif)[2], vif['address'], vif['network'].get_meta('mtu') or 1500)

    def attach_interface(self, context, instance, image_meta, vif):
        with self._lock(instance.uuid):
            self.plug_vifs(instance, [vif])
            boot = self._load(instance.uuid)
            n = next(n for n in range(1, 64) if str(n) not in boot['devices'])
            if self._pid(instance.uuid) and not self._mconsole(instance, 'config vec%d:%s' % (n, self._device(vif))):
                self.unplug_vifs(instance, [vif])
                raise exception.InterfaceAttachFailed(instance_uuid=instance.uuid)
            boot['devices'][str(n)] = [vif['id'], self._device(vif)]
            self._store(instance.uuid, boot)

    def detach_interface(self, context, instance, vif):
        with self._lock(instance.uuid):
            boot = self._load(instance.uuid)
            port, _, tap = self._names(vif)
            for n in [n for n, (vif_id, _) in boot['devices'].items() if vif_id == vif['id']]:
                if not self._pid(instance.uuid) or self._mconsole(instance, 'remove vec' + n):
                    del boot['devices'][n]
                    continue
                # The kernel does not let go of a device that is up, and only the guest could take it down. Its cable is pulled; the
                # device is dead until the next start, and its tap with it.
                boot['devices'][n] = [None, tap]
            self._store(instance.uuid, boot)
            run('ovs-vsctl', '--timeout=30', '--if-exists', 'del-port', port)
            run('ip', 'link', 'del', port, check_exit_code=False)
            if [None, tap] not in boot['devices'].values():
                run('ip', 'link', 'del', tap, check_exit_code=False)

    def _drop_dead_devices(self, uuid):
        with contextlib.suppress(FileNotFoundError):
            boot = self._load(uuid)
            for n, (vif_id, tap) in list(boot['devices'].items()):
                if vif_id is None:
                    run('ip', 'link', 'del', tap, check_exit_code=False)
                    del boot['devices'][n]
            self._store(uuid, boot)

    # Life

    def _base(self, context, instance):
        # The image, raw and as large as the flavor's disk: all servers of that size write their changes beside it.
        base = self._dir('_base', '%s_%d' % (instance.image_ref, instance.flavor.root_gb))
        with lockutils.lock(base):
            if os.path.exists(base):
                return base
            local = os.path.join(CONF.uml.raw_images, instance.image_ref + '.raw')
            if CONF.uml.raw_images and os.path.exists(local):
                run('cp', '--reflink=auto', '--sparse=always', local, base + '.new')
            else:
                images.fetch_to_raw(context, instance.image_ref, base + '.new')
            size = instance.flavor.root_gb << 30
            if size > os.path.getsize(base + '.new'):
                os.truncate(base + '.new', size)
                run('resize2fs', '-f', base + '.new', check_exit_code=False)  # an image with partitions stays as it is
            os.rename(base + '.new', base)
        return base

    def _start(self, context, instance, network_info):
        words = (instance.system_metadata.get('image_os_command_line') or '').split()
        args = [CONF.uml.kernel, 'mem=%dM' % instance.flavor.memory_mb, 'umid=' + instance.uuid, 'uml_dir=%s/' % CONF.uml.run_dir,
                'ubd0=%s,%s' % (self._dir(instance.uuid, 'root.cow'), self._base(context, instance)), 'root=/dev/ubda', 'rw',
                # A rebooting kernel would execute itself while its own helpers still hold the tap: it ends, and _watch starts it.
                'noreboot', 'con=null', 'con0=null,fd:1', 'seccomp=on', 'audit=0', 'random.trust_cpu=on', 'net.ifnames=0', 'quiet',
                # There is no DMI. This word ends up in the environment of init, where cloud-init looks for the platform too.
                'product_name="OpenStack Nova"']
        args += [w for w in words if not w.startswith(('root=', 'console='))]
        if os.path.exists(self._dir(instance.uuid, 'disk.config')):
            args.append('ubd1r=' + self._dir(instance.uuid, 'disk.config'))
        devices = {str(n): [vif['id'], self._device(vif)] for n, vif in enumerate(network_info)}
        self._store(instance.uuid, {'args': args, 'devices': devices, 'console': 0})
        self._boot(instance.uuid)

    def _boot(self, uuid):
        self._drop_dead_devices(uuid)
        boot = self._load(uuid)
        boot['console'] = os.path.getsize(self._dir(uuid, 'console.log'))
        self._store(uuid, boot)
        shutil.rmtree(os.path.join(CONF.uml.run_dir, uuid), ignore_errors=True)
        args = boot['args'] + ['vec%s:%s' % (n, device) for n, (_, device) in sorted(boot['devices'].items())]
        # A session of its own, so that the guest outlives nova-compute. A PID namespace of its own, because the kernel makes
        # process groups as it likes: when unshare is gone, all of the guest is gone.
        run('setsid', '--fork', 'sh', '-c', 'ulimit -n 65536; exec </dev/null >>"$0/console.log" 2>&1; echo $$ >"$0/pid"; '
            'exec unshare --pid --fork --kill-child --mount-proc "$@"', self._dir(uuid), *args,
            env_variables=dict(os.environ, TMPDIR=CONF.uml.memory_dir, HOME='/root'))
        for _ in range(100):
            if pid := self._pid(uuid):
                self._watched[uuid] = pid
                return
            time.sleep(0.05)
        raise exception.InstancePowerOnFailure(reason='the guest ended at once, see its console')

    def _vif_failed(self, event_name, instance):
        if CONF.vif_plugging_is_fatal:
            raise exception.VirtualInterfaceCreateException()

    def spawn(self, context, instance, image_meta, injected_files, admin_password, allocations, network_info=None,
              block_device_info=None, power_on=True, accel_info=None):
        os.makedirs(self._dir(instance.uuid), exist_ok=True)
        open(self._dir(instance.uuid, 'console.log'), 'a').close()
        if configdrive.required_by(instance):
            extra = {'admin_pass': admin_password} if admin_password else {}
            md = instance_metadata.InstanceMetadata(instance, content=injected_files, network_info=network_info, extra_md=extra)
            with configdrive.ConfigDriveBuilder(instance_md=md) as drive:
                drive.make_drive(self._dir(instance.uuid, 'disk.config'))
        self._base(context, instance)
        events = [('network-vif-plugged', vif['id']) for vif in network_info if vif.get('active', True) is False]
        with self.virtapi.wait_for_instance_event(instance, events if CONF.vif_plugging_timeout else [],
                                                  deadline=CONF.vif_plugging_timeout, error_callback=self._vif_failed):
            self.plug_vifs(instance, network_info)
            if power_on:
                with self._lock(instance.uuid):
                    self._start(context, instance, network_info)

    def power_on(self, context, instance, network_info, block_device_info=None, accel_info=None, share_info=None):
        with self._lock(instance.uuid):
            if not self._pid(instance.uuid):
                self.plug_vifs(instance, network_info)
                self._start(context, instance, network_info)

    def resume_state_on_host_boot(self, context, instance, network_info, share_info, block_device_info=None):
        self.power_on(context, instance, network_info)

    def power_off(self, instance, timeout=0, retry_interval=0):
        with self._lock(instance.uuid):
            self._watched.pop(instance.uuid, None)
            if timeout and self._mconsole(instance, 'cad'):  # Ctrl-Alt-Del: the guest stops and wants to restart
                self._gone(instance.uuid, timeout)
            pid = self._pid(instance.uuid)
            if pid:
                # The first process inside goes first: the kernel ends and reaps all others before it lets go of it, and unshare
                # ends after it. So no helper holds a tap, a file or memory any more.
                with contextlib.suppress(OSError), open('/proc/%d/task/%d/children' % (pid, pid)) as f:
                    for child in f.read().split():
                        os.kill(int(child), signal.SIGKILL)
                if not self._gone(instance.uuid, 5):
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                    if not self._gone(instance.uuid, 5):
                        raise exception.InstancePowerOffFailure(reason='process %d does not end' % pid)
            self._drop_dead_devices(instance.uuid)
            shutil.rmtree(os.path.join(CONF.uml.run_dir, instance.uuid), ignore_errors=True)

    def _gone(self, uuid, timeout):
        end = time.time() + timeout
        while self._pid(uuid) and time.time() < end:
            time.sleep(0.05)
        return not self._pid(uuid)

    def reboot(self, context, instance, network_info, reboot_type, block_device_info=None, bad_volumes_callback=None,
               accel_info=None, share_info=None):
        self.power_off(instance, timeout=SOFT_REBOOT_TIMEOUT if reboot_type == 'SOFT' else 0)
        self.power_on(context, instance, network_info)

    def destroy(self, context, instance, network_info, block_device_info=None, destroy_disks=True, destroy_secrets=True):
        self.power_off(instance)
        self.cleanup(context, instance, network_info, block_device_info, destroy_disks)

    def cleanup(self, context, instance, network_info, block_device_info=None, destroy_disks=True, migrate_data=None,
                destroy_vifs=True, destroy_secrets=True):
        if destroy_vifs:
            self.unplug_vifs(instance, network_info)
        if destroy_disks:
            self.delete_instance_files(instance)

    def delete_instance_files(self, instance):
        shutil.rmtree(self._dir(instance.uuid), ignore_errors=True)
        return True

    def pause(self, instance):
        self._mconsole(instance, 'stop')

    def unpause(self, instance):
        self._mconsole(instance, 'go')

    def _mconsole(self, instance, command):
        # The kernel's management socket, see arch/um/drivers/mconsole.h: magic, version, length, text; error, more, length, text.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.bind('')  # the reply needs an address
            s.settimeout(5)
            s.sendto(struct.pack('=III512s', 0xcafebabe, 2, len(command), command.encode()),
                     os.path.join(CONF.uml.run_dir, instance.uuid, 'mconsole'))
            failed, _, _ = struct.unpack('=III', s.recv(4096)[:12])
            return not failed
        return False

    def get_console_output(self, context, instance):
        with open(self._dir(instance.uuid, 'console.log'), 'rb') as f:
            f.seek(max(0, os.path.getsize(f.name) - 100 * 1024))
            return f.read()
