/** After everything: nothing of the driver's is left on any host. Called after each test. */
import type { Deployment } from './deployment.ts';

/**
 * Of every machine, since the storage host can be a node as well; its own disks are no sdX. Each line is one thing left,
 * `prefix: what`. What can't be looked at is a line too: a command that fails has not said that nothing is there.
 *
 * In the run folder LVM's private configuration stays, and so does the file whose flock is the controller's lock.
 */
const EVERYWHERE = `
list() { # PREFIX COMMAND...
  local prefix=$1 out; shift
  if out=$("$@"); then [ -z "$out" ] || sed "s|^ *|$prefix: |" <<<"$out"; else echo "unknown: $* failed"; fi
}
[ -d /run/lvm-iscsi-csi ] && list 'run file' find /run/lvm-iscsi-csi -ignore_readdir_race -type f ! -path '/run/lvm-iscsi-csi/lvm/*' ! -name 'controller-*.lock'
# A plugin that runs has one for its mutating commands; a second of the same owner is a dead one's, or a command without end.
list scope systemctl list-units --all --plain --no-legend 'lvm-iscsi-csi-*.scope' | sed -E 's/-[0-9a-f]{12}[.]scope.*//' | sort | uniq -d
[ -e /run/lock/iscsi/lock.write ] && ! pgrep -x iscsiadm >/dev/null && echo "database lock: /run/lock/iscsi/lock.write"
for s in /sys/class/iscsi_session/session*; do [ -e "$s" ] && echo "session: $(cat $s/targetname)"; done
for d in /etc/iscsi/nodes /var/lib/iscsi/nodes; do [ -d "$d" ] && list 'node record' find $d -ignore_readdir_race -mindepth 1 -maxdepth 1; done
# The lab's own SCSI disk says QEMU.
for d in /sys/block/sd*; do [ -e "$d" ] && ! grep -q QEMU "$d/device/vendor" && echo "device: $d"; done
grep -E ' /var/lib/kubelet/| /dev/sd| /var/lib/lvm-iscsi-csi' /proc/self/mountinfo | awk '{print "mount: " $5 " " $10}'
[ -d /var/lib/lvm-iscsi-csi ] && list 'state file' find /var/lib/lvm-iscsi-csi -ignore_readdir_race -type f ! -path '*/boot*'
[ -d /var/lib/kubelet/pods ] && list 'target path' find /var/lib/kubelet/pods -ignore_readdir_race -name mount
[ -d /var/lib/kubelet/plugins ] && list 'staging path' find /var/lib/kubelet/plugins -ignore_readdir_race -name globalmount ! -empty
true
`;

/**
 * By intent (docs/design.md) two things stay: the target that holds the portals, without ACLs or LUNs, and the unit that
 * ends sessions at shutdown. A host that certainly has no such VG has no LVs of ours.
 */
const STORAGE = `
if groups=$(vgs --noheadings -o vg_name); then
  grep -qx ' *cinder-volumes *' <<<"$groups" && list LV lvs --noheadings -o lv_name,lv_tags cinder-volumes
else
  echo 'unknown: vgs failed'
fi
list gate dmsetup ls | grep -E '^gate: gate-|^unknown: '
for t in /sys/kernel/config/target/iscsi/iqn.*; do [ -d "$t" ] && echo "target: $t"; done | grep -vE ":portal-[^:]*[.][0-9a-f]{8}[.][0-9a-f]{12}$"
for t in /sys/kernel/config/target/iscsi/iqn.*/tpgt_1/acls/*; do [ -d "$t" ] && echo "ACL: $t"; done
for b in /sys/kernel/config/target/core/iblock_*/*; do [ -d "$b" ] && echo "backstore: $b"; done
true
`;

const NOTHING = /(?!)/;

/**
 * What is left, one line each, with the host's name; [] when nothing. Wiping goes on in the background: each LV has
 * up to `timeoutMs`.
 * @param expected lines, with the host's name, that are none of a test's
 */
export async function leftovers(
  deployment: Pick<Deployment, 'lab'>,
  expected: RegExp = NOTHING,
  timeoutMs = 120_000,
): Promise<string[]> {
  const { storage, machines } = deployment.lab;
  let deadline = performance.now() + timeoutMs;
  let before = Infinity;
  for (;;) {
    const found = (
      await Promise.all(
        machines.map(async (machine) => {
          const { stdout } = await machine.exec(machine === storage ? `${EVERYWHERE}${STORAGE}` : EVERYWHERE);
          const lines = stdout.split('\n').filter((line) => line !== '');
          return lines.map((line) => `${machine.name}: ${line}`).filter((line) => !expected.test(line));
        }),
      )
    ).flat();
    // Deleted volumes are wiped and removed in the background; everything else must be gone when the call answers.
    const pending = found.filter((line) => line.includes('LV: _wipe-'));
    if (pending.length < before) deadline = performance.now() + timeoutMs;
    before = pending.length;
    if (found.length === 0 || pending.length < found.length || performance.now() > deadline) return found;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

/** @throws Error listing everything that is left */
export async function assertNothingLeft(deployment: Deployment): Promise<void> {
  const found = await leftovers(deployment);
  if (found.length > 0) throw new Error(`left behind:\n${found.join('\n')}`);
}
