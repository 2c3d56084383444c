/**
 * Makes the process die or wait at named steps, for the crash tests. It must never work on anybody's real machine: it
 * takes an environment variable AND a marker file that only lab machines carry; the variable alone is refused.
 *
 * In the folder that the variable names:
 * - `crash-at` holds a point, `after:lv-create` or `before:lv-create#2` (the second time since the file was written):
 *   there the file is renamed to `crashed` (so that the next start lives) and the process sends itself SIGKILL;
 * - `pause-at` holds a point: there the step waits until the file is removed or names another point; meanwhile the file
 *   `paused` holds the point;
 * - `steps.log` gets a line for each point passed.
 */
import { appendFileSync, existsSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { setStepHook } from './step.ts';

export const TEST_STEPS_VARIABLE = 'LVM_ISCSI_CSI_TEST_STEPS';
export const LAB_MARKER = '/etc/lvm-iscsi-csi-lab';

const POLL_MS = 50;
const POINT = /^(before|after):[a-z0-9-]+(#[1-9][0-9]*)?$/;

/** The hook was asked for where it must not work: main prints the message and exits with code 2. */
export class TestHookRefused extends Error {
  override readonly name = 'TestHookRefused';
}

/**
 * Installs the hook when the environment asks for it; true when it did.
 * @param markerPath where this machine's marker is seen; from a pod that is under the host's root.
 * @throws TestHookRefused on a machine without the marker, or when the folder is not there.
 */
export function installTestHooks(
  env: Readonly<Record<string, string | undefined>>,
  markerPath: string = LAB_MARKER,
): boolean {
  const folder = env[TEST_STEPS_VARIABLE];
  if (folder === undefined) return false;
  if (!existsSync(markerPath)) {
    throw new TestHookRefused(
      `${TEST_STEPS_VARIABLE} is set, which makes this program crash on purpose, but this machine is no lab machine ` +
        `(no ${markerPath}); to do: unset the variable`,
    );
  }
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) {
    throw new TestHookRefused(`${TEST_STEPS_VARIABLE} must name a folder; found: "${folder}"`);
  }
  const crash = new PointFile(join(folder, 'crash-at'));
  const pause = new PointFile(join(folder, 'pause-at'));
  setStepHook(async (point) => {
    appendFileSync(join(folder, 'steps.log'), `${point}\n`);
    const dies = crash.reached(point);
    if (pause.reached(point)) await waitWhilePaused(folder, pause);
    if (!dies) return;
    renameSync(crash.path, join(folder, 'crashed'));
    process.kill(process.pid, 'SIGKILL');
    await new Promise(() => undefined);
  });
  return true;
}

/** A file that names a point; counts how often the point has been passed since the file was written. */
class PointFile {
  readonly path: string;
  #version = '';
  #passed = 0;

  constructor(path: string) {
    this.path = path;
  }

  /** The file's words, undefined when it is absent or empty (about to be written). */
  read(): string | undefined {
    try {
      const text = readFileSync(this.path, 'utf8').trim();
      return text === '' ? undefined : text;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }

  reached(point: string): boolean {
    const wanted = this.read();
    if (wanted === undefined) return false;
    if (!POINT.test(wanted))
      throw new TestHookRefused(`${this.path} must hold a point like after:lv-create#2; found: "${wanted}"`);
    const version = `${statSync(this.path).mtimeMs} ${wanted}`;
    if (version !== this.#version) {
      this.#version = version;
      this.#passed = 0;
    }
    const [name, time = '1'] = wanted.split('#');
    if (name !== point) return false;
    this.#passed += 1;
    return this.#passed === Number(time);
  }
}

async function waitWhilePaused(folder: string, pause: PointFile): Promise<void> {
  const point = pause.read();
  const sign = join(folder, 'paused');
  writeFileSync(sign, `${point}\n`);
  while (pause.read() === point) await delay(POLL_MS);
  rmSync(sign, { force: true });
}
