/** The boundary between the program's frame (main, life cycle, configuration) and what a role does. */
import type { Metrics } from '../observability/metrics.ts';
import type { Files } from '../system/files.ts';
import type { HostCommands } from '../system/host-commands.ts';
import type { HostNamespace } from '../system/host-namespace.ts';
import type { ProbeResult } from '../volumes/backend.ts';

/** What every role is given; made once by the frame, closed by the frame. */
export interface RoleDependencies {
  readonly host: HostNamespace;
  readonly commands: HostCommands;
  readonly files: Files;
  readonly metrics: Metrics;
  /** Aborted when the process is to end: a start that waits (for a lock, a volume group) gives up. */
  readonly stopping: AbortSignal;
  /** Ends the process with exit code 1 after a drain. */
  readonly fail: (reason: string) => void;
  /** Ends the process with exit code 1 at once: nothing that it does may go on, e.g. when the host lock was lost. */
  readonly die: (reason: string) => void;
}

/** A role that serves calls. Ending it never tears down exports, sessions or mounts. */
export interface RunningRole {
  /** For /readyz; the same words as CSI's Probe. */
  ready(): Promise<ProbeResult>;
  /** Takes no new calls and waits for those in progress, at most timeoutMs; answers how many were still running. */
  drain(timeoutMs: number): Promise<number>;
  /** Stops background work and lets go of locks. */
  close(): Promise<void>;
}
