/** After everything: nothing of the driver's is left on any host. Called after each test. */
import type { Deployment } from './deployment.ts';

/**
 * Of both roles: files of a command or a suspension that nobody has collected. LVM's private configuration stays, and so
 * does the file whose flock is the controller's lock.
 */
const RUN_FILES = `
[ -d /run/lvm-iscsi-csi ] && find /run/lvm-iscsi-csi -type f ! -path '/run/lvm-iscsi-csi/lvm/*' ! -name 'controller-*.lock' | sed 's/^/run file: /'
systemctl list-units --all --plain --no-legend 'run-*.scope' | grep -i lvm-iscsi-csi | sed 's/^/scope: /'
`;

/**
 * Each prints one line for each thing left; `prefix: what`. By intent (docs/design.md) two things of the storage host
 * stay: the target that holds the portals, without ACLs or LUNs, and the unit that ends sessions at shutdown.
 */
const STORAGE = `${RUN_FILES}
vgs cinder-volumes >/dev/null 2>&1 && lvs --noheadings -o lv_name,lv_tags cinder-volumes | sed 's/^ */LV: /'
dmsetup ls 2>/dev/null | grep '^gate-' | sed 's/^/gate: /'
for t in /sys/kernel/config/target/iscsi/iqn.*; do [ -d "$t" ] && echo "target: $t"; done | grep -vE ":portal-cinder-volumes[.][0-9a-f]{8}[.][0-9a-f]{12}$"
for t in /sys/kernel/config/target/iscsi/iqn.*/tpgt_1/acls/*; do [ -d "$t" ] && echo "ACL: $t"; done
for b in /sys/kernel/config/target/core/iblock_*/*; do [ -d "$b" ] && echo "backstore: $b"; done
true`;

const NODE = `${RUN_FILES}
[ -e /run/lock/iscsi/lock.write ] && ! pgrep -x iscsiadm >/dev/null && echo "database lock: /run/lock/iscsi/lock.write"
for s in /sys/class/iscsi_session/session*; do [ -e "$s" ] && echo "session: $(cat $s/targetname)"; done
for d in /etc/iscsi/nodes /var/lib/iscsi/nodes; do [ -d "$d" ] && find $d -mindepth 1 -maxdepth 1 | sed 's/^/node record: /'; done
for d in /sys/block/sd*; do [ -e "$d" ] && echo "device: $d"; done
grep -E ' /var/lib/kubelet/| /dev/sd| /var/lib/lvm-iscsi-csi' /proc/self/mountinfo | awk '{print "mount: " $5 " " $10}'
[ -d /var/lib/lvm-iscsi-csi ] && find /var/lib/lvm-iscsi-csi -type f | grep -v -F '/boot' | sed 's/^/state file: /'
[ -d /var/lib/kubelet/pods ] && find /var/lib/kubelet/pods -name mount | sed 's/^/target path: /'
[ -d /var/lib/kubelet/plugins ] && find /var/lib/kubelet/plugins -name globalmount ! -empty | sed 's/^/staging path: /'
true`;

/** What is left, one line each, with the host's name; [] when nothing. Wiping has up to `timeoutMs` to end. */
export async function leftovers(deployment: Deployment, timeoutMs = 120_000): Promise<string[]> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const found: string[] = [];
    for (const machine of deployment.lab.machines) {
      const { stdout } = await machine.exec(machine === deployment.lab.storage ? STORAGE : NODE);
      found.push(
        ...stdout
          .split('\n')
          .filter((line) => line !== '')
          .map((line) => `${machine.name}: ${line}`),
      );
    }
    // Deleted volumes are wiped and removed in the background; everything else must be gone when the call answers.
    const pending = found.filter((line) => line.includes('LV: _wipe-'));
    if (found.length === 0 || pending.length < found.length || performance.now() > deadline) return found;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

/** @throws Error listing everything that is left */
export async function assertNothingLeft(deployment: Deployment): Promise<void> {
  const found = await leftovers(deployment);
  if (found.length > 0) throw new Error(`left behind:\n${found.join('\n')}`);
}
