/**
 * Which HBA holds which volume's backstore, and the next free number. One HBA (`core/iblock_N`) for each volume: LIO
 * has no other place to keep backstores, and a shared HBA would serialise them. Our numbers begin where no other tool's
 * do (rtslib takes the smallest free from 0), so that an HBA that a crash left empty is known to be ours.
 *
 * A lookup costs one readdir: contents of HBAs that are known do not change behind our back (one controller for each
 * host, and other tools have names of their own), except empty ones, which are read again.
 */
import type { ConfigFs, Mutation } from './configfs.ts';
import { makeFolder, removeFolder } from './configfs-calls.ts';
import { readHbaNames, readHbas } from './inventory.ts';
import { HBA_NAME, type TargetLayout } from './layout.ts';

const FIRST_NUMBER = 10_000;

type Contents = ReadonlyMap<string, readonly string[]>;

/** An HBA that is being made for a volume; nobody else touches it until it is settled. */
export interface Reservation {
  readonly hba: string;
  /** Makes `iblock_N` and `iblock_N/<volumeId>`. */
  readonly mutations: readonly Mutation[];
  settle(made: boolean): void;
}

export class HbaIndex {
  readonly #layout: TargetLayout;
  /** HBAs that an operation in progress makes or removes. */
  readonly #busy = new Set<string>();
  #contents: Contents = new Map();

  constructor(layout: TargetLayout) {
    this.#layout = layout;
  }

  /** The HBA that holds the volume's backstore. */
  async find(fs: ConfigFs, volumeId: string): Promise<string | undefined> {
    return holderOf(await this.#refresh(fs), volumeId);
  }

  /** What is known turned out to be wrong: somebody else has been at work. */
  forget(): void {
    this.#contents = new Map();
  }

  /** Our smallest number that is free, or whose HBA a crash has left empty. `find` must have been called before. */
  reserve(volumeId: string): Reservation {
    let number = FIRST_NUMBER;
    const isTaken = (hba: string): boolean => this.#busy.has(hba) || (this.#contents.get(hba) ?? []).length > 0;
    while (isTaken(`iblock_${number}`)) number += 1;
    const hba = `iblock_${number}`;
    const path = `${this.#layout.core}/${hba}`;
    this.#busy.add(hba);
    return {
      hba,
      mutations: [makeFolder('target-hba-make', path), makeFolder('target-backstore-make', `${path}/${volumeId}`)],
      settle: (made) => {
        this.#busy.delete(hba);
        if (made) this.#contents = new Map([...this.#contents, [hba, [volumeId]]]);
      },
    };
  }

  /** Removes the volume's backstore if there is one, its HBA, and HBAs of ours that a crash has left empty. */
  async release(fs: ConfigFs, volumeId: string): Promise<void> {
    const known = await this.#refresh(fs);
    const holder = holderOf(known, volumeId);
    const emptied = [...known]
      .filter(([hba, names]) => isOurs(hba) && !this.#busy.has(hba) && names.every((one) => one === volumeId))
      .map(([hba]) => hba);
    for (const hba of emptied) this.#busy.add(hba);
    try {
      await fs.apply([
        ...(holder === undefined
          ? []
          : [removeFolder('target-backstore-remove', `${this.#layout.core}/${holder}/${volumeId}`)]),
        ...emptied.map((hba) => removeFolder('target-hba-remove', `${this.#layout.core}/${hba}`)),
      ]);
    } finally {
      for (const hba of emptied) this.#busy.delete(hba);
      this.#contents = new Map([...this.#contents].filter(([hba]) => hba !== holder));
    }
  }

  async #refresh(fs: ConfigFs): Promise<Contents> {
    const present = await readHbaNames(fs, this.#layout);
    const unknown = present.filter((hba) => (this.#contents.get(hba) ?? []).length === 0);
    const read = await readHbas(fs, this.#layout, unknown);
    // What others have learnt meanwhile is newer than what this look found.
    const now = new Map(present.map((hba) => [hba, this.#contents.get(hba) ?? []]));
    for (const [index, hba] of unknown.entries())
      if ((now.get(hba) ?? []).length === 0) now.set(hba, read[index] ?? []);
    this.#contents = now;
    return now;
  }
}

/** Nobody else makes one of that number. */
export function isOurs(hba: string): boolean {
  return Number(HBA_NAME.exec(hba)?.[1]) >= FIRST_NUMBER;
}

function holderOf(contents: Contents, volumeId: string): string | undefined {
  return [...contents].find(([, names]) => names.includes(volumeId))?.[0];
}
