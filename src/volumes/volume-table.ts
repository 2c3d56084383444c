/** The volumes of the VG as its tags tell them: one reading, and the look-ups that every operation starts with. */
import { DriverError } from '../errors.ts';
import type { LogicalVolume, Lvm, VgReport } from '../lvm/types.ts';
import { log } from '../system/context.ts';
import { explainLvm } from './lvm-errors.ts';
import type { Attachment, Volume } from './model.ts';
import { type LvMeaning, readLv } from './tags.ts';

export interface VolumeEntry {
  readonly lv: LogicalVolume;
  readonly volume: Volume;
  readonly made: boolean;
  readonly growingFromBytes: number | undefined;
}

export class VolumeTable {
  readonly report: VgReport;
  readonly #meanings: ReadonlyMap<string, { lv: LogicalVolume; meaning: LvMeaning }>;

  constructor(report: VgReport, clusterId: string) {
    this.report = report;
    this.#meanings = new Map(report.lvs.map((lv) => [lv.name, { lv, meaning: readLv(lv, clusterId) }]));
  }

  /**
   * The one way to a table, so that no operation takes a VG that does not show its volumes for one without volumes.
   * @throws DriverError UNAVAILABLE when the VG is not there, cannot be read, or is exported.
   */
  static async read(lvm: Lvm, clusterId: string, options?: { fresh?: boolean }): Promise<VolumeTable> {
    const report = await explainLvm(`volume group "${lvm.vgName}" could not be read`, lvm.vgName, () =>
      lvm.read(options),
    );
    if (report.vg.exported) {
      throw new DriverError('UNAVAILABLE', {
        problem: `the volumes of volume group "${lvm.vgName}" are not known`,
        found: 'the volume group is exported (vgexport), and LVM lists no logical volume then',
        action: `vgimport ${lvm.vgName}; the call is retried`,
      });
    }
    return new VolumeTable(report, clusterId);
  }

  /** All of them, made or not. */
  entries(): VolumeEntry[] {
    return [...this.#meanings.values()].flatMap(({ lv, meaning }) =>
      meaning.kind === 'volume'
        ? [{ lv, volume: meaning.volume, made: meaning.made, growingFromBytes: meaning.growingFromBytes }]
        : [],
    );
  }

  waitingForWipe(): LogicalVolume[] {
    return [...this.#meanings.values()].flatMap(({ lv, meaning }) => (meaning.kind === 'wipe' ? [lv] : []));
  }

  refused(): { lvName: string; reason: string }[] {
    return [...this.#meanings.values()].flatMap(({ lv, meaning }) =>
      meaning.kind === 'refused' ? [{ lvName: lv.name, reason: meaning.reason }] : [],
    );
  }

  /**
   * The entry of that id, made or not; undefined when there is no such volume.
   * @throws DriverError FAILED_PRECONDITION when an LV of that name is there that is not ours to touch.
   */
  find(volumeId: string): VolumeEntry | undefined {
    const found = this.#meanings.get(volumeId);
    if (found === undefined) return undefined;
    const { lv, meaning } = found;
    switch (meaning.kind) {
      case 'volume':
        return { lv, volume: meaning.volume, made: meaning.made, growingFromBytes: meaning.growingFromBytes };
      case 'refused':
        throw new DriverError('FAILED_PRECONDITION', {
          problem: `volume ${volumeId} is not this controller's to use`,
          found: meaning.reason,
          action: 'nothing was changed; see docs/operations.md, "An LV is refused"',
        });
      default:
        return undefined;
    }
  }

  /** LV under that name, marked for wiping but not renamed yet (a deletion that a crash cut short). */
  halfDeleted(volumeId: string): LogicalVolume | undefined {
    const found = this.#meanings.get(volumeId);
    return found?.meaning.kind === 'wipe' ? found.lv : undefined;
  }

  /** A volume that may be handed out. */
  findMade(volumeId: string): VolumeEntry | undefined {
    const entry = this.find(volumeId);
    return entry?.made === true ? entry : undefined;
  }

  /** @throws DriverError NOT_FOUND */
  require(volumeId: string): VolumeEntry {
    const entry = this.findMade(volumeId);
    if (entry === undefined) {
      throw new DriverError('NOT_FOUND', {
        problem: `volume ${volumeId.slice(0, 128)} does not exist`,
        found: `no such logical volume in volume group "${this.report.vg.name}"`,
        action: `compare with "lvs -o lv_name,lv_tags ${this.report.vg.name}" on the storage host: the volume was deleted, renamed there, or is in another volume group`,
      });
    }
    return entry;
  }

  attachments(): { volumeId: string; attachment: Attachment }[] {
    return this.entries().flatMap(({ volume }) =>
      volume.attachments.map((attachment) => ({ volumeId: volume.id, attachment })),
    );
  }

  warnRefused(): void {
    for (const { reason } of this.refused()) log().warn({ reason }, 'logical volume left alone');
  }
}
