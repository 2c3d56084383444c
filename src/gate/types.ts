/**
 * The gate: a dm-linear device of our own between an LV and its LIO backstore, where I/O can be stopped without LVM
 * noticing. Name `gate-<uuid>` for volume `volume-<uuid>`, device-mapper UUID `LVMISCSICSI-gate-<uuid>`.
 */
export interface Gate {
  readonly volumeId: string;
  /** `/dev/mapper/gate-<uuid>`. */
  readonly path: string;
  readonly suspended: boolean;
  /** Target type of the live table: linear, error, none (no live table yet). */
  readonly table: 'linear' | 'error' | 'none' | 'other';
  readonly sizeBytes: number;
  /** "major:minor" of the device beneath, of a linear table. */
  readonly backing: string | undefined;
  readonly openCount: number;
}

export interface Gates {
  path(volumeId: string): string;
  list(): Promise<Gate[]>;
  /** Makes or repairs the gate: linear over lvPath, exactly sizeBytes, not suspended. Right already: not touched. Grows in one ioctl. */
  ensure(spec: { volumeId: string; lvPath: string; sizeBytes: number }): Promise<void>;
  /** In-flight I/O drains or fails, the error table is live: from then on nothing lands on the LV. Absent gate: nothing to do. */
  sever(volumeId: string, options?: { timeoutMs?: number }): Promise<void>;
  /** Absent: nothing to do. Throws while something holds it open. */
  remove(volumeId: string): Promise<void>;
  /** Is the device beneath the gate an LV of another VG than the one with this UUID? No gate, or an error table: false. */
  servesOtherVg(volumeId: string, vgUuid: string): Promise<boolean>;
  /** Resumes every gate of ours that is suspended (left by a crash); returns their volume ids. */
  resumeAll(): Promise<string[]>;
  /** Suspends the gates, runs `action`, resumes. A guard outside the process resumes them after 8 s whatever happens to us. */
  withSuspended<T>(volumeIds: readonly string[], action: () => Promise<T>): Promise<T>;
}
