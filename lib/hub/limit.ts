/** Lets at most `size` actions run at a time; the others wait in order. */
export class Limit {
  readonly #waiting: (() => void)[] = [];
  #free: number;

  constructor(size: number) {
    this.#free = size;
  }

  async run<T>(action: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await action();
    } finally {
      // The place goes straight to the next in line, so that a newcomer can't take it.
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}

/**
 * Runs `action` for every item within a limit and waits for all. The first failure ends the others, whose signal it
 * aborts, and is thrown.
 */
export async function forAll<T, R>(
  items: T[],
  limit: Limit,
  signal: AbortSignal,
  action: (item: T, signal: AbortSignal) => Promise<R>,
): Promise<R[]> {
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const runs = items.map((item) =>
    limit.run(async () => {
      either.throwIfAborted();
      return action(item, either);
    }),
  );
  for (const run of runs) run.catch((error: unknown) => failed.abort(error));
  await Promise.allSettled(runs);
  either.throwIfAborted();
  return Promise.all(runs);
}
