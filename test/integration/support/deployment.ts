/** The driver in both roles on a lab: controller on the storage host, a node plugin on every node. */
import path from 'node:path';
import { execa } from 'execa';
import { Lab, type LabOptions } from '../../lab/lab.ts';
import { DriverUnit, PROGRAM, type UnitOptions } from './driver-unit.ts';

const ROOT = path.join(import.meta.dirname, '../../..');
const BUNDLE = path.join(ROOT, 'dist/lvm-iscsi-csi.mjs');

export interface DeploymentOptions extends LabOptions, UnitOptions {
  readonly controllerOptions?: readonly string[];
  readonly nodeOptions?: readonly string[];
  /** Further arguments of vgcreate; false: no VG is made. */
  readonly vgcreate?: string | false;
  /** Run `scrub` first, so that free extents are trusted. Default true. */
  readonly scrub?: boolean;
  /** Pattern-fill and the like, before vgcreate. */
  readonly beforeVg?: (lab: Lab) => Promise<void>;
}

export interface Deployment {
  readonly lab: Lab;
  readonly controller: DriverUnit;
  readonly nodes: readonly DriverUnit[];
}

let built: Promise<unknown> | undefined;

/** One bundle for the whole test run, from the sources as they are. */
export async function buildBundle(): Promise<string> {
  built ??= execa(process.execPath, ['build.ts'], { cwd: ROOT });
  await built;
  return BUNDLE;
}

const VG_DISK_BYTES = 4 * 1024 ** 3;

/** The VG's disk can zero without writing, unless the options ask for other disks. */
export async function startLab(options: LabOptions = {}): Promise<Lab> {
  return await Lab.start({
    ...options,
    storage: { disks: [{ name: 'vg', direct: true, sizeBytes: VG_DISK_BYTES }], ...options.storage },
  });
}

/** Puts the driver on a lab that is fresh (started or reset), with a VG on its disk, and starts both roles. */
export async function deploy(lab: Lab, options: DeploymentOptions = {}): Promise<Deployment> {
  const bundle = await buildBundle();
  await Promise.all(lab.machines.map((machine) => machine.copyTo(bundle, PROGRAM)));
  await options.beforeVg?.(lab);
  if (options.vgcreate !== false)
    await lab.createVolumeGroup('cinder-volumes', options.vgcreate ?? '--metadatasize 64m');
  const controller = new DriverUnit(lab.storage, 'controller');
  await controller.install(
    [`--portals=${lab.storage.address}:3260`, '--cluster-id=lab', ...(options.controllerOptions ?? [])],
    options,
  );
  const nodes = lab.nodes.map((machine) => new DriverUnit(machine, 'node'));
  await Promise.all(
    nodes.map((unit) => unit.install([`--node-name=${unit.machine.name}`, ...(options.nodeOptions ?? [])], options)),
  );
  if (options.vgcreate !== false && options.scrub !== false) {
    await lab.storage.exec(
      `/usr/local/bin/node ${PROGRAM} scrub --portals=${lab.storage.address}:3260 --cluster-id=lab`,
      { timeoutMs: 300_000 },
    );
  }
  await Promise.all([controller, ...nodes].map((unit) => unit.start()));
  return { lab, controller, nodes };
}

/** For csi-sanity and the demo: local paths of the sockets. */
export async function sockets(deployment: Deployment): Promise<{ controllerSocket: string; nodeSockets: string[] }> {
  return {
    controllerSocket: await deployment.lab.storage.forwardSocket(deployment.controller.socket),
    nodeSockets: await Promise.all(deployment.nodes.map((unit) => unit.machine.forwardSocket(unit.socket))),
  };
}
