/**
 * The volatile write cache of an NVMe controller: a feature of the controller (NVM Express Base Specification 2.0,
 * 5.27.1.4 "Volatile Write Cache", feature 06h, bit 0 WCE), which sysfs does not show. nvme-cli is asked. The kernel
 * does not ask the disk again and goes on flushing: that costs nothing on a disk without a cache.
 */
import { basename } from 'node:path';
import { CommandError, type Commands } from '../system/commands.ts';
import type { Files } from '../system/files.ts';
import { step } from '../system/step.ts';
import { absentAs } from './block-devices.ts';

/** Not of one namespace: 0 is what the specification asks for where a feature is the controller's. */
const FEATURE = ['--feature-id=0x6', '--namespace-id=0'];

export class NvmeCaches {
  readonly #commands: Commands;
  readonly #files: Files;
  readonly #hostRoot: string;

  constructor(options: { commands: Commands; files: Files; hostRoot: string }) {
    this.#commands = options.commands;
    this.#files = options.files;
    this.#hostRoot = options.hostRoot;
  }

  /**
   * @param disk kernel name, as nvme0n1
   * @returns names of the controllers through which it is reached, as nvme0; [] when it is no NVMe disk
   */
  async controllersOf(disk: string): Promise<string[]> {
    if (!disk.startsWith('nvme')) return [];
    const device = `${this.#hostRoot}/sys/class/block/${disk}/device`;
    const isController = (name: string) => /^nvme\d+$/.test(name);
    const link = await absentAs('', this.#files.readlink(device));
    if (isController(basename(link))) return [basename(link)];
    // With the kernel's own multipath the disk belongs to a subsystem, which holds links to its controllers.
    if (!basename(link).startsWith('nvme-subsys')) return [];
    return (await absentAs([], this.#files.readdir(device))).filter(isController).sort();
  }

  /** @throws CommandError when it cannot be told: nvme-cli is not installed, or the controller does not answer */
  async isOff(controllers: readonly string[]): Promise<boolean> {
    for (const controller of controllers) {
      const args = ['get-feature', `/dev/${controller}`, ...FEATURE];
      const { stdout } = await this.#commands.run({ file: 'nvme', args, kind: 'read', timeoutMs: 30_000 });
      // "get-feature:0x6 (Volatile Write Cache), Current value:0x00000001"; some versions leave the second 0x out.
      const value = /value:\s*(?:0x)?([0-9a-f]+)\s*$/im.exec(stdout)?.[1];
      if (value === undefined || (Number.parseInt(value, 16) & 1) !== 0) return false;
    }
    return controllers.length > 0;
  }

  /** @throws CommandError */
  async turnOff(controllers: readonly string[]): Promise<void> {
    for (const controller of controllers) {
      const args = ['set-feature', `/dev/${controller}`, ...FEATURE, '--value=0'];
      await step('disk-cache-off', () => this.#commands.run({ file: 'nvme', args, kind: 'mutate' }));
    }
  }
}

/** In a log line's words. */
export function whyNvmeFailed(error: unknown): string {
  if (!(error instanceof CommandError)) return String(error);
  return error.missing ? 'nvme is not installed; to do: install the package nvme-cli' : error.shortMessage;
}
