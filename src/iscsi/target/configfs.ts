/**
 * configfs through the blocking-file helper, within the deadline of one operation. A round trip to the helper costs more
 * than the work, so what is asked in one turn of the event loop goes in one batch, and mutations are applied together,
 * in order. When a test watches the steps (step.ts) each mutation is made on its own, in the same order: what it sees is
 * what a crash can leave.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Deadline } from '../../system/deadline.ts';
import {
  type BatchAnswer,
  type BatchCall,
  type FileOptions,
  type Files,
  FileTimeoutError,
} from '../../system/files.ts';
import { step, stepsAreWatched } from '../../system/step.ts';
import { TargetTimeoutError } from './errors.ts';

/** A call begun just before the deadline still gets this long: it is normally microseconds. */
const SHORTEST_TIMEOUT_MS = 100;
const POLL_MS = 20;

/** A read and what its answer means. Made by configfs-calls.ts. */
export interface Query<T> {
  readonly call: BatchCall;
  readonly meaning: (answer: BatchAnswer) => T;
}

/** A change under the name of its step. Made by configfs-calls.ts. */
export interface Mutation {
  readonly step: string;
  readonly call: BatchCall;
}

type Answers<Q extends readonly Query<unknown>[]> = {
  -readonly [I in keyof Q]: Q[I] extends Query<infer T> ? T : never;
};

export function errorCode(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
  return typeof code === 'string' ? code : undefined;
}

export class ConfigFs {
  readonly #files: Files;
  readonly deadline: Deadline;
  #queued: BatchCall[] = [];
  #flushing: Promise<readonly BatchAnswer[]> | undefined;

  constructor(files: Files, deadline: Deadline) {
    this.#files = files;
    this.deadline = deadline;
  }

  async ask<const Q extends readonly Query<unknown>[]>(...queries: Q): Promise<Answers<Q>> {
    const answers = await this.#enqueue(queries.map(({ call }) => call));
    return queries.map(({ meaning }, index) => meaning(answerAt(answers, index))) as Answers<Q>;
  }

  async askAll<T>(queries: readonly Query<T>[]): Promise<T[]> {
    return (await this.ask(...queries)) as T[];
  }

  /**
   * Makes the changes in order; none after the first that fails.
   * @returns for each the code of the accepted error ("already so"), or undefined when it was made.
   */
  async apply(mutations: readonly Mutation[]): Promise<(string | undefined)[]> {
    return (await this.applyAndAsk(mutations)).codes;
  }

  /** Makes the changes and then asks, in the same go. */
  async applyAndAsk<const Q extends readonly Query<unknown>[]>(
    mutations: readonly Mutation[],
    ...queries: Q
  ): Promise<{ codes: (string | undefined)[]; answers: Answers<Q> }> {
    const answers: BatchAnswer[] = [];
    if (stepsAreWatched()) {
      for (const { step: name, call } of mutations) answers.push(...(await step(name, () => this.#batch([call]))));
      answers.push(...(await this.#batch(queries.map(({ call }) => call))));
    } else {
      answers.push(...(await this.#batch([...mutations, ...queries].map(({ call }) => call))));
    }
    return {
      codes: mutations.map((_mutation, index) => answerAt(answers, index).code),
      answers: queries.map(({ meaning }, index) => meaning(answerAt(answers, mutations.length + index))) as Answers<Q>,
    };
  }

  /** Polls until the condition holds. @throws TargetTimeoutError */
  async waitUntil(condition: () => Promise<boolean>, what: string): Promise<void> {
    while (!(await condition())) {
      if (this.deadline.remainingMs === 0) throw this.#late(what);
      await delay(POLL_MS);
    }
  }

  /** A call that fails fails the whole batch: its askers belong to one operation, which fails as a whole. */
  async #enqueue(calls: readonly BatchCall[]): Promise<readonly BatchAnswer[]> {
    if (calls.length === 0) return [];
    const first = this.#queued.length;
    this.#queued.push(...calls);
    this.#flushing ??= new Promise((resolve, reject) => {
      setImmediate(() => {
        const batch = this.#queued;
        this.#queued = [];
        this.#flushing = undefined;
        this.#batch(batch).then(resolve, reject);
      });
    });
    return (await this.#flushing).slice(first, first + calls.length);
  }

  async #batch(calls: readonly BatchCall[]): Promise<BatchAnswer[]> {
    if (calls.length === 0) return [];
    const options = { timeoutMs: Math.max(this.deadline.remainingMs, SHORTEST_TIMEOUT_MS) };
    try {
      if (this.#files.batch !== undefined) return await this.#files.batch(calls, options);
      const answers: BatchAnswer[] = [];
      for (const call of calls) answers.push(await single(this.#files, call, options));
      return answers;
    } catch (error) {
      if (error instanceof FileTimeoutError) throw this.#late(`${error.operation} of ${error.path}`, error);
      throw error;
    }
  }

  #late(what: string, cause?: unknown): TargetTimeoutError {
    const text = `${what}: not done within ${this.deadline.timeoutMs} ms; the kernel may be waiting for I/O`;
    return new TargetTimeoutError(text, { cause });
  }
}

function answerAt(answers: readonly BatchAnswer[], index: number): BatchAnswer {
  const answer = answers[index];
  if (answer === undefined)
    throw new Error(`the file helper gave ${answers.length} answers, number ${index} is missing`);
  return answer;
}

/** For a `Files` without batches. */
async function single(files: Files, call: BatchCall, options: FileOptions): Promise<BatchAnswer> {
  try {
    switch (call.operation) {
      case 'writeAttribute':
        return { value: (await files.writeAttribute(call.path, call.text, options)) as undefined };
      case 'symlink':
        return { value: (await files.symlink(call.target, call.path, options)) as undefined };
      case 'mkdir':
      case 'rmdir':
      case 'unlink':
        return { value: (await files[call.operation](call.path, options)) as undefined };
      default:
        return { value: await files[call.operation](call.path, options) };
    }
  } catch (error) {
    const code = errorCode(error);
    if (code !== undefined && (call.accept ?? []).includes(code)) return { code };
    throw error;
  }
}
