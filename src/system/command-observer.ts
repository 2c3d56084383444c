/** Told about each command that has ended; implemented by the metrics. */
export type CommandOutcome = 'ok' | 'exit' | 'signal' | 'timeout' | 'missing' | 'failed';

export interface CommandObserver {
  /** `program` is what does the work (`lvs`, `blkdiscard`, `iscsiadm`): a bounded set, fit for a metric's label. */
  observe(program: string, kind: 'read' | 'mutate', durationMs: number, outcome: CommandOutcome): void;
}
