/**
 * What is laid over a plain Debian to make it a lab machine. All of it is part of the image's hash.
 */

export interface ImageFile {
  readonly content: string;
  readonly mode?: number;
}

export const DEBIAN_SUITE = 'bookworm';

export const PACKAGES: readonly string[] = [
  'linux-image-amd64',
  'systemd-sysv',
  'udev',
  'dbus',
  'openssh-server',
  'lvm2',
  'thin-provisioning-tools',
  'open-iscsi',
  'xfsprogs',
  'e2fsprogs',
  'cryptsetup-bin',
  'nvme-cli',
  'kmod',
  'iproute2',
  'iputils-ping',
  'fio',
  'python3-minimal',
  'util-linux',
  'nftables',
  'procps',
  'psmisc',
  'initramfs-tools',
];

/** Half of a stock kernel package is drivers for hardware that no virtual machine has. */
export const EXCLUDED_PATHS: readonly string[] = [
  '/usr/share/doc/*',
  '/usr/share/man/*',
  '/usr/share/locale/*',
  ...[
    'drivers/gpu',
    'drivers/media',
    'drivers/net/ethernet',
    'drivers/net/wireless',
    'drivers/infiniband',
    'drivers/staging',
    'drivers/iio',
    'drivers/isdn',
    'drivers/usb',
    'drivers/hid',
    'sound',
  ].map((folder) => `/lib/modules/*/kernel/${folder}/*`),
];

/** There before packages are configured: the kernel's own script builds the initrd, once and small. */
export const EARLY_FILES: Readonly<Record<string, ImageFile>> = {
  // Only what reaches the root disk. systemd-udevd finds everything else later, and TCG unpacks each megabyte slowly.
  '/etc/initramfs-tools/conf.d/lab.conf': { content: 'MODULES=list\nCOMPRESS=gzip\nRESUME=none\n' },
  '/etc/initramfs-tools/modules': { content: 'virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n' },
};

const MODULES = [
  'target_core_mod',
  'target_core_iblock',
  'iscsi_target_mod',
  'iscsi_tcp',
  'sd_mod',
  'dm_mod',
  'dm_thin_pool',
  'dm_snapshot',
  'dm_delay',
  'dm_crypt',
  'ext4',
  'xfs',
  'virtio_blk',
  'virtio_net',
];

export const FILES: Readonly<Record<string, ImageFile>> = {
  '/etc/fstab': { content: '/dev/vda / ext4 defaults 0 1\n' },
  '/etc/modules-load.d/lab.conf': { content: `${MODULES.join('\n')}\n` },
  '/etc/systemd/journald.conf.d/lab.conf': {
    content: '[Journal]\nStorage=persistent\nSystemMaxUse=64M\nRateLimitBurst=0\n',
  },
  // A machine that was cut off must come back by itself, and a test that waits for a stop must not wait 90 s.
  '/etc/systemd/system.conf.d/lab.conf': { content: '[Manager]\nDefaultTimeoutStopSec=60s\n' },
  '/etc/sysctl.d/lab.conf': { content: 'kernel.panic=2\nkernel.hung_task_timeout_secs=60\n' },
  '/etc/ssh/sshd_config.d/lab.conf': {
    // No PAM and no look-ups: each exec of a test is a session, and processes are slow under emulation.
    content: [
      'PermitRootLogin prohibit-password',
      'UsePAM no',
      'UseDNS no',
      'PrintMotd no',
      'MaxSessions 200',
      'MaxStartups 200',
      'StreamLocalBindUnlink yes',
      'ClientAliveInterval 0',
      '',
    ].join('\n'),
  },
  '/usr/local/sbin/lab-slot': {
    mode: 0o755,
    // The machine learns who it is from its kernel line, so that one image serves every slot and every boot says the same.
    content: `#!/bin/bash
set -eu
for word in $(</proc/cmdline); do
  case $word in
    lab.iqn=*) iqn=\${word#lab.iqn=} ;;
    lab.data=*) data=\${word#lab.data=} ;;
    lab.control=*) control=\${word#lab.control=} ;;
    systemd.hostname=*) name=\${word#systemd.hostname=} ;;
  esac
done
umask 077
echo "InitiatorName=$iqn" > /etc/iscsi/initiatorname.iscsi
umask 022
echo "$name" > /etc/hostname
printf '127.0.0.1 localhost\\n127.0.1.1 %s\\n' "$name" > /etc/hosts
setup() { # NAME MAC,ADDRESS/PREFIX
  local name=$1 mac=\${2%%,*} address=\${2#*,} path
  for path in /sys/class/net/*; do
    [ "$(<"$path/address")" = "$mac" ] || continue
    [ "\${path##*/}" = "$name" ] || ip link set "\${path##*/}" down name "$name"
    ip address replace "$address" dev "$name"
    ip link set "$name" up
    return
  done
  echo "no interface with MAC $mac" >&2
  return 1
}
setup control0 "$control"
setup data0 "$data"
`,
  },
  '/etc/systemd/system/lab-slot.service': {
    content: `[Unit]
Description=Identity and network of this lab machine
DefaultDependencies=no
After=systemd-udev-settle.service systemd-modules-load.service systemd-remount-fs.service
Wants=systemd-udev-settle.service network.target network-online.target
Before=network.target network-online.target iscsid.service open-iscsi.service ssh.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/lab-slot
[Install]
WantedBy=multi-user.target
`,
  },
};

/** Units that only cost boot time, or that would do things behind a test's back. */
const MASKED = [
  'apt-daily.timer',
  'apt-daily-upgrade.timer',
  'dpkg-db-backup.timer',
  'e2scrub_all.timer',
  'e2scrub_reap.service',
  'fstrim.timer',
  'systemd-tmpfiles-clean.timer',
  'systemd-timesyncd.service',
  'systemd-networkd.service',
  'systemd-update-utmp.service',
  'systemd-binfmt.service',
  'proc-sys-fs-binfmt_misc.automount',
  'systemd-pstore.service',
  'getty@tty1.service',
  'serial-getty@ttyS0.service',
  'keyboard-setup.service',
  'console-setup.service',
  'nftables.service',
];

/** Run in the new root, by sh, when all packages and files are there. */
export const SETUP_SCRIPT = `
set -e
systemctl mask --quiet ${MASKED.join(' ')}
systemctl enable --quiet lab-slot.service iscsid.service ssh.service
mkdir -p /var/log/journal
passwd --delete root >/dev/null
rm -f /root/.bashrc /root/.profile /etc/machine-id
: > /etc/machine-id
cp /boot/vmlinuz-* /vmlinuz.lab
cp /boot/initrd.img-* /initrd.lab
depmod "$(basename /lib/modules/*)"
`;
