/**
 * Progress lines for work that takes a while. They go to stderr, so that a command's own output stays clean; a step that
 * is still busy says so at intervals, because a silent minute looks like a hang.
 */

const HEARTBEAT_MS = 15_000;

export interface Progress {
  /** One line, with the time since the start in seconds. */
  line(text: string): void;
  /** Runs `work`, says when it begins, still runs and ends. An error passes through after a line that names the step. */
  step<T>(text: string, work: () => Promise<T>): Promise<T>;
}

/** A silent progress, for callers that show their own. */
export const silent: Progress = {
  line: () => undefined,
  step: (_text, work) => work(),
};

/** @param prefix shown in front of each line, as `lab` in `[lab   3.2 s] …` */
export function createProgress(prefix: string, write: (text: string) => void = writeStderr): Progress {
  const startedAt = performance.now();
  const line = (text: string): void =>
    write(`[${prefix} ${seconds(performance.now() - startedAt).padStart(7)}] ${text}\n`);
  return {
    line,
    async step(text, work) {
      line(text);
      const stepStartedAt = performance.now();
      const elapsed = (): string => seconds(performance.now() - stepStartedAt);
      const heartbeat = setInterval(() => line(`${text}: still at it, ${elapsed()}`), HEARTBEAT_MS);
      try {
        const result = await work();
        line(`${text}: done in ${elapsed()}`);
        return result;
      } catch (error) {
        line(`${text}: failed after ${elapsed()}`);
        throw error;
      } finally {
        clearInterval(heartbeat);
      }
    },
  };
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

function writeStderr(text: string): void {
  process.stderr.write(text);
}
