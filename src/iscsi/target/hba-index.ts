/**
 * Which HBA holds which volume's backstore, and the next free number. One HBA (`core/iblock_N`) for each volume: LIO
 * has no other place to keep backstores, and a shared HBA would serialise them. Our numbers begin where no other tool's
 * do (rtslib takes the smallest free from 0), so that an HBA that a crash left empty is known to be ours.
 *
 * A lookup costs one readdir: contents of HBAs that are known do not change behind our back (one controller for each
 * host, and other tools have names of their own), except empty ones, which are read again.
 */
import { lockWithin } from '../../system/deadline.ts';
import { KeyedMutex } from '../../system/keyed-mutex.ts';
import type { ConfigFs } from './configfs.ts';
import { makeFolder, node, removeFolder } from './configfs-calls.ts';
import { TargetTimeoutError } from './errors.ts';
import { readHbaNames, readHbas } from './inventory.ts';
import { HBA_NAME, type TargetLayout } from './layout.ts';

const FIRST_NUMBER = 10_000;

type Contents = ReadonlyMap<string, readonly string[]>;

export class HbaIndex {
  readonly #layout: TargetLayout;
  readonly #mutex = new KeyedMutex();
  #contents: Contents = new Map();

  constructor(layout: TargetLayout) {
    this.#layout = layout;
  }

  /** The HBA that holds the volume's backstore. */
  async find(fs: ConfigFs, volumeId: string): Promise<string | undefined> {
    const hba = holderOf(await this.#refresh(fs), volumeId);
    if (hba === undefined) return undefined;
    const [found] = await fs.ask(node(`${this.#layout.core}/${hba}/${volumeId}`));
    if (found !== undefined) return hba;
    // Removed, and perhaps made again elsewhere, by somebody else.
    this.#contents = new Map();
    return holderOf(await this.#refresh(fs), volumeId);
  }

  /** Makes `iblock_N/<volumeId>` with our smallest number that is free, or whose HBA a crash has left empty. */
  async allocate(fs: ConfigFs, volumeId: string): Promise<string> {
    return await this.#alone(fs, async () => {
      const known = await this.#refresh(fs);
      let number = FIRST_NUMBER;
      while ((known.get(`iblock_${number}`) ?? []).length > 0) number += 1;
      const hba = `iblock_${number}`;
      const path = `${this.#layout.core}/${hba}`;
      await fs.apply([makeFolder('target-hba-make', path), makeFolder('target-backstore-make', `${path}/${volumeId}`)]);
      return hba;
    });
  }

  /** Removes the volume's backstore if there is one, its HBA, and HBAs of ours that a crash has left empty. */
  async release(fs: ConfigFs, volumeId: string): Promise<void> {
    await this.#alone(fs, async () => {
      const known = await this.#refresh(fs);
      const hba = holderOf(known, volumeId);
      const emptied = [...known].filter(([name, names]) => isOurs(name) && names.every((one) => one === volumeId));
      await fs.apply([
        ...(hba === undefined
          ? []
          : [removeFolder('target-backstore-remove', `${this.#layout.core}/${hba}/${volumeId}`)]),
        ...emptied.map(([name]) => removeFolder('target-hba-remove', `${this.#layout.core}/${name}`)),
      ]);
      this.#contents = new Map([...known].filter(([name]) => name !== hba));
    });
  }

  async #refresh(fs: ConfigFs): Promise<Contents> {
    const before = this.#contents;
    const present = await readHbaNames(fs, this.#layout);
    const unknown = present.filter((hba) => (before.get(hba) ?? []).length === 0);
    const read = await readHbas(fs, this.#layout, unknown);
    const now = new Map(present.map((hba) => [hba, before.get(hba) ?? []]));
    for (const [index, hba] of unknown.entries()) now.set(hba, read[index] ?? []);
    this.#contents = now;
    return now;
  }

  /** Otherwise one volume's allocation could choose the HBA that another's removal is about to remove. */
  async #alone<T>(fs: ConfigFs, action: () => Promise<T>): Promise<T> {
    return await lockWithin(
      { mutex: this.#mutex, key: 'hba' },
      fs.deadline,
      () => new TargetTimeoutError('work on the backstore of another volume has not ended in time'),
      action,
    );
  }
}

function isOurs(hba: string): boolean {
  return Number(HBA_NAME.exec(hba)?.[1]) >= FIRST_NUMBER;
}

function holderOf(contents: Contents, volumeId: string): string | undefined {
  return [...contents].find(([, names]) => names.includes(volumeId))?.[0];
}
