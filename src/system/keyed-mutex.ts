/** One at a time for each key, in order of arrival; different keys do not wait for each other. */
export class KeyedMutex {
  readonly #tails = new Map<string, Promise<unknown>>();

  async run<T>(key: string, action: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve();
    const mine = before.then(action, action);
    // The chain must go on after a failure; the failure itself belongs to the caller.
    const tail = mine.catch(() => undefined);
    this.#tails.set(key, tail);
    try {
      return await mine;
    } finally {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    }
  }

  /** Only when nothing runs or waits under the key. @returns whether it ran. */
  async runIfFree(key: string, action: () => Promise<void>): Promise<boolean> {
    if (this.#tails.has(key)) return false;
    await this.run(key, action);
    return true;
  }
}
