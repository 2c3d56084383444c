/**
 * Named steps. Every mutation of the system is wrapped in `step("…", action)`, so that a test can make the process die
 * (SIGKILL) or wait just before or just after it. Outside tests this is a plain call.
 */

/** Called with "before:NAME" and "after:NAME"; installed by `test-hooks.ts`, and only in a lab. */
export type StepHook = (point: string) => Promise<void>;

let hook: StepHook | undefined;

export function setStepHook(newHook: StepHook | undefined): void {
  hook = newHook;
}

/** Runs one mutation under a name that is stable, kebab-case and unique in the source (e.g. "lv-create"). */
export async function step<T>(name: string, action: () => Promise<T>): Promise<T> {
  if (hook === undefined) return await action();
  await hook(`before:${name}`);
  const result = await action();
  await hook(`after:${name}`);
  return result;
}

/** True while a test watches the steps: what is otherwise done in one go is then done step by step. */
export function stepsAreWatched(): boolean {
  return hook !== undefined;
}
