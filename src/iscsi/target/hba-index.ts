/**
 * Which HBA holds which volume's backstore, and the next free number. One HBA (`core/iblock_N`) for each volume: LIO
 * has no other place to keep backstores, and a shared HBA would serialise them.
 *
 * A lookup costs one readdir: contents of HBAs that are known do not change behind our back (one controller for each
 * host, and other tools have names of their own), except empty ones, which are read again.
 */
import { lockWithin } from '../../system/deadline.ts';
import { KeyedMutex } from '../../system/keyed-mutex.ts';
import { step } from '../../system/step.ts';
import { type ConfigFs, errorCode } from './configfs.ts';
import { TargetTimeoutError } from './errors.ts';
import { readHba } from './inventory.ts';
import { HBA_NAME, type TargetLayout } from './layout.ts';

export class HbaIndex {
  readonly #layout: TargetLayout;
  readonly #mutex = new KeyedMutex();
  #contents: ReadonlyMap<string, readonly string[]> = new Map();

  constructor(layout: TargetLayout) {
    this.#layout = layout;
  }

  /** The HBA that holds the volume's backstore. */
  async find(fs: ConfigFs, volumeId: string): Promise<string | undefined> {
    const known = await this.#refresh(fs);
    const hba = [...known].find(([, names]) => names.includes(volumeId))?.[0];
    if (hba === undefined || (await fs.exists(`${this.#layout.core}/${hba}/${volumeId}`))) return hba;
    // Removed, and perhaps made again elsewhere, by somebody else.
    this.#contents = new Map();
    return [...(await this.#refresh(fs))].find(([, names]) => names.includes(volumeId))?.[0];
  }

  /** Makes `iblock_N/<volumeId>` with the smallest number that is free, or whose HBA a crash has left empty. */
  async allocate(fs: ConfigFs, volumeId: string): Promise<string> {
    return await this.#alone(fs, async () => {
      const known = await this.#refresh(fs);
      let number = 0;
      while ((known.get(`iblock_${number}`) ?? []).length > 0) number += 1;
      const hba = `iblock_${number}`;
      const folder = `${this.#layout.core}/${hba}`;
      // Another tool may have made this HBA just now: two devices then share it, which LIO allows.
      await step('target-hba-make', () => fs.makeFolder(folder));
      await step('target-backstore-make', () => fs.makeFolder(`${folder}/${volumeId}`));
      return hba;
    });
  }

  /** Removes the backstore, and its HBA unless another tool has put a device of its own there. */
  async release(fs: ConfigFs, hba: string, volumeId: string): Promise<void> {
    const folder = `${this.#layout.core}/${hba}`;
    await this.#alone(fs, async () => {
      await step('target-backstore-remove', () => fs.removeFolder(`${folder}/${volumeId}`));
      try {
        await step('target-hba-remove', () => fs.removeFolder(folder));
      } catch (error) {
        if (errorCode(error) !== 'ENOTEMPTY') throw error;
      }
      this.#contents = new Map([...this.#contents].filter(([name]) => name !== hba));
    });
  }

  async #refresh(fs: ConfigFs): Promise<ReadonlyMap<string, readonly string[]>> {
    const before = this.#contents;
    const present = (await fs.namesIfPresent(this.#layout.core)).filter((name) => HBA_NAME.test(name));
    const now = new Map(
      await Promise.all(
        present.map(async (hba) => {
          const names = before.get(hba) ?? [];
          return [hba, names.length > 0 ? names : await readHba(fs, this.#layout, hba)] as const;
        }),
      ),
    );
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
