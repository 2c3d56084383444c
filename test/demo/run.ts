/**
 * `npm run demo`: a volume's whole life, on two real hosts of the lab, through the driver's real CSI sockets. Each step
 * says what Kubernetes would do at that point, what was done, and how long it took.
 */
import { CsiError, failureOf } from '../integration/support/csi-client.ts';
import { type Deployment, deploy, startLab } from '../integration/support/deployment.ts';
import { assertNothingLeft } from '../integration/support/leftovers.ts';
import { MIB, TestVolume } from '../integration/support/volume-life.ts';
import type { Lab } from '../lab/lab.ts';

const startedAt = performance.now();
let steps = 0;

async function tell<T>(
  kubernetes: string,
  action: string,
  work: () => Promise<T>,
  show?: (result: T) => string,
): Promise<T> {
  steps += 1;
  console.log(`\n${String(steps).padStart(2)}. ${kubernetes}\n    ${action}`);
  const begin = performance.now();
  const result = await work();
  const text = show?.(result);
  console.log(
    `    done in ${((performance.now() - begin) / 1000).toFixed(2)} s${text === undefined ? '' : `\n${text.replace(/^/gm, '    | ')}`}`,
  );
  return result;
}

async function demo(deployment: Deployment): Promise<void> {
  const { lab, nodes } = deployment;
  const [node1, node2] = nodes;
  if (node1 === undefined || node2 === undefined) throw new Error('the demo needs two nodes');
  const volume = new TestVolume(deployment, { name: 'pvc-demo', sizeBytes: 512 * MIB });
  const storage = lab.storage;
  const file = () => `${volume.targetPath()}/letter.txt`;

  await tell(
    'A PersistentVolumeClaim is made; external-provisioner calls CreateVolume.',
    'CreateVolume: 512 MiB, ext4, ReadWriteOnce',
    () => volume.create(),
    () => `volume id ${volume.id}`,
  );
  await tell(
    '(look) The volume is a logical volume; all that the driver knows of it is in its tags.',
    `storage# lvs cinder-volumes`,
    () =>
      storage.exec(
        `lvs --noheadings --separator ' ' -o lv_name,lv_size cinder-volumes; lvs --noheadings -o lv_tags cinder-volumes | tr ',' '\\n'`,
      ),
    ({ stdout }) => stdout.replace(/^ +/gm, ''),
  );
  await tell(
    'A pod is scheduled to node-1; external-attacher calls ControllerPublishVolume.',
    'ControllerPublishVolume: gate, LIO target with its own IQN, ACL for node-1 with CHAP',
    () => volume.attach(node1),
    (context) => `${context['targetIqn']} at ${context['portals']}`,
  );
  await tell(
    'kubelet on node-1 calls NodeStageVolume.',
    'NodeStageVolume: iSCSI login, device checked by its serial, file system mounted',
    () => volume.stage(node1),
  );
  await tell('kubelet on node-1 calls NodePublishVolume.', "NodePublishVolume: bind mount into the pod's folder", () =>
    volume.publish(node1),
  );
  await tell(
    '(look) What node-1 sees.',
    'node-1# lsblk, df',
    () =>
      node1.machine.exec(`lsblk -o NAME,SIZE,TYPE,TRAN,MOUNTPOINT /dev/sd?; df -h '${volume.targetPath()}' | tail -1`),
    ({ stdout }) => stdout,
  );
  await tell('The pod writes.', `node-1# echo … > letter.txt; sync`, () =>
    node1.machine.exec(`echo 'written on node-1' > '${file()}' && sync -f '${file()}'`),
  );
  await tell(
    'The claim is edited to 1 GiB; external-resizer and kubelet expand it online.',
    'ControllerExpandVolume, NodeExpandVolume',
    async () => {
      await volume.expand(1024 * MIB);
      await volume.nodeExpand(node1);
      return await node1.machine.exec(`df -h '${volume.targetPath()}' | tail -1`);
    },
    ({ stdout }) => stdout,
  );
  await tell(
    'A pod on node-2 wants the same ReadWriteOnce volume meanwhile: it must not get it.',
    'ControllerPublishVolume for node-2 is refused',
    () => failureOf(volume.attach(node2)),
    (error) => error.message,
  );
  await tell(
    'The controller plugin is killed and started again while the volume is mounted.',
    'SIGKILL, then start: the session and the mount never notice',
    async () => {
      await deployment.controller.kill();
      await deployment.controller.start();
      return await node1.machine.exec(`cat '${file()}' && cat /sys/class/iscsi_session/session*/state`);
    },
    ({ stdout }) => stdout,
  );
  await tell(
    'The pod moves to node-2: kubelet on node-1 unpublishes and unstages, the attacher detaches.',
    'NodeUnpublishVolume, NodeUnstageVolume, ControllerUnpublishVolume (node-1 is fenced before the answer)',
    () => volume.takeFrom(node1),
  );
  await tell(
    'The attacher and kubelet bring it to node-2.',
    'ControllerPublishVolume, NodeStageVolume, NodePublishVolume',
    () => volume.bringTo(node2),
  );
  await tell(
    'The pod on node-2 reads.',
    'node-2# cat letter.txt',
    () => node2.machine.exec(`cat '${file()}'`),
    ({ stdout }) => {
      if (stdout !== 'written on node-1') throw new Error(`node-2 read ${JSON.stringify(stdout)}`);
      return stdout;
    },
  );
  await tell(
    'Pod and claim are deleted.',
    'NodeUnpublish, NodeUnstage, ControllerUnpublish, DeleteVolume; the LV is wiped in the background',
    () => volume.down(node2),
  );
  await tell(
    '(look) Nothing is left on any host.',
    'no LV, gate, target, ACL, session, record, mount, device or file',
    () => assertNothingLeft(deployment),
  );
}

let lab: Lab | undefined;
async function end(code: number): Promise<never> {
  await lab?.stop();
  process.exit(code);
}
process.once('SIGINT', () => void end(130));
process.once('SIGTERM', () => void end(143));

try {
  console.log('lvm-iscsi-csi: a storage host and two nodes, the driver in both roles, and one volume.');
  lab = await startLab({ nodes: 2 });
  const deploying = performance.now();
  const deployment = await deploy(lab);
  console.log(
    `\nHosts are up, the driver runs on all three (deployed in ${((performance.now() - deploying) / 1000).toFixed(1)} s).`,
  );
  await demo(deployment);
  console.log(
    `\nDemo complete: ${steps} steps in ${((performance.now() - startedAt) / 1000).toFixed(0)} s. Run "npm test" for the proof, "npm run lab -- up" for a bench of your own.`,
  );
  await end(0);
} catch (error) {
  console.error(
    `\nDemo failed at step ${steps}: ${error instanceof CsiError ? error.message : error instanceof Error ? error.stack : String(error)}`,
  );
  await end(1);
}
