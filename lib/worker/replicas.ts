import { DetinferError } from '../protocol/errors.js';
import type { EngineInfo, SchedulerStatus, WorkerRequest } from '../protocol/messages.js';
import type { ServerArgs } from '../protocol/server-args.js';
import { Dispatcher } from './dispatcher.js';
import { Replica, replicaArgs } from './replica.js';
import { addStatuses } from './scheduler-status.js';
import { startWorker, type WorkerHandlers } from './supervisor.js';
import { checkNewWeights, reloadAll } from './weight-update.js';

/** Starts that may fail in a row, of each worker, before the server gives up. */
const MAX_FAILED_STARTS = 6;

/** What of a worker's memory can be released, under SGLang's names. */
export const MEMORY_TAGS = ['weights', 'kv_cache', 'cuda_graph'] as const;
export type MemoryTag = (typeof MEMORY_TAGS)[number];

export interface ReplicasStatus {
  /** All replicas together, and what waits for one. */
  scheduler: SchedulerStatus;
  /** One for each replica that is up. */
  replicas: SchedulerStatus[];
  isPaused: boolean;
  /** What was released and not resumed. */
  releasedMemory: MemoryTag[];
  /** Workers that were lost since the start. */
  workerDeaths: number;
  /** How often a request was taken up by another worker. */
  replays: number;
}

/** `--dp-size` workers that look like one that does not die. What becomes of requests is the Dispatcher's. */
export class Replicas {
  private readonly replicas: Replica[] = [];
  private readonly requests: Dispatcher;
  private engineInfo!: EngineInfo;
  private workerDeaths = 0;
  private paused = false;
  private readonly released = new Set<MemoryTag>();
  /** What is done to all workers now, and must not meet another of its kind. */
  private underWay: string | null = null;

  private constructor(
    private args: ServerArgs,
    /** onExit is called when no worker can be started any more. */
    private readonly handlers: WorkerHandlers,
    start: typeof startWorker,
  ) {
    this.requests = new Dispatcher(this.replicas, handlers);
    const progress = new Array<number>(args.dpSize).fill(0);
    for (let index = 0; index < args.dpSize; index++) {
      const onProgress = (done: number, total: number): void => {
        progress[index] = done;
        handlers.onProgress(progress.reduce((sum, bytes) => sum + bytes), total * args.dpSize);
      };
      this.replicas.push(this.makeReplica(index, replicaArgs(args, index), onProgress, start));
    }
  }

  /**
   * Starts all workers, and resolves when they are ready.
   * @throws DetinferError why one could not start; none is left then.
   */
  static async open(args: ServerArgs, handlers: WorkerHandlers, start = startWorker): Promise<Replicas> {
    const replicas = new Replicas(args, handlers, start);
    try {
      await replicas.openAll();
    } catch (error) {
      await replicas.shutdown();
      throw error;
    }
    return replicas;
  }

  /** Of each worker. */
  get info(): EngineInfo {
    return this.engineInfo;
  }

  /** Whether a worker is ready. Requests are taken anyway, and wait for one. */
  get isUp(): boolean {
    return !this.isReleased && this.replicas.some(({ worker }) => worker !== null);
  }

  /** Whether no step is planned. Requests are taken anyway, and wait. */
  get isPaused(): boolean {
    return this.paused;
  }

  /** Whether memory is released, or not all back yet. Requests should be refused: only resumeMemory() lets them run. */
  get isReleased(): boolean {
    return this.released.size > 0;
  }

  /** Requests that can run at the same time. */
  get capacity(): number {
    return this.replicas.length * this.info.maxRunningRequests;
  }

  submit(requests: WorkerRequest[]): void {
    this.requests.submit(requests);
  }

  /** Ends requests; each gets a last event, unless it has ended before. */
  abort(ids: string[], message: string): void {
    this.requests.abort(ids, message);
  }

  /** Stops planning steps, or goes on. Resolves when all workers heed it. */
  async setPaused(isPaused: boolean): Promise<void> {
    this.paused = isPaused;
    for (const replica of this.replicas) replica.setPaused(isPaused);
    await this.status();
  }

  /**
   * Serves the weights of another folder. Requests that have come before end with the old weights, those that come
   * meanwhile begin with the new ones. While paused nothing ends: then requests without output begin with the new
   * weights, and others are in the way. While memory is released the folder is checked, and loaded by resumeMemory().
   * @param abortMessage not null: requests that have come before are aborted.
   * @returns how many requests waited for it.
   * @throws DetinferError why the old weights are served still.
   */
  updateWeights(modelPath: string, abortMessage: string | null): Promise<number> {
    return this.exclusively('another update of the weights', async () => {
      checkNewWeights(modelPath, this.args, this.info);
      const { requests } = this;
      requests.hold();
      try {
        if (abortMessage !== null) requests.abortAll(abortMessage);
        if (this.isPaused && abortMessage === null) requests.withdrawAll();
        else await requests.drain();
        requests.holdAll();
        if (!this.isReleased) await reloadAll(this.replicas, this.args.modelPath, modelPath, this.info);
        this.args = { ...this.args, modelPath };
        return requests.waitingCount;
      } finally {
        requests.forgetCaches();
        requests.letGo();
      }
    });
  }

  /**
   * Gives the memory of all engines back to the system: their workers end, since a process without memory has nothing
   * to keep, and what a GPU's driver holds for a process goes with it. Releasing any tag releases everything.
   * @throws DetinferError INVALID_REQUEST while requests are live
   */
  async releaseMemory(tags: readonly MemoryTag[]): Promise<void> {
    await this.exclusively('a release of memory', async () => {
      const wasReleased = this.isReleased;
      const active = this.requests.activeCount;
      if (active > 0) {
        const advice = 'let them end, or abort them (/abort_request, or /pause_generation with mode abort)';
        throw new DetinferError('INVALID_REQUEST', `${active} requests have not ended: ${advice}`);
      }
      // From here on no new ones are taken.
      for (const tag of tags) this.released.add(tag);
      if (wasReleased) return;
      this.requests.hold();
      await this.requests.drain();
      await this.leaveAll();
      this.requests.forgetCaches();
      this.requests.letGo();
    });
  }

  /**
   * Starts all workers again once no tag is left: with the weights of the folder that is served, a KV cache of the same
   * size and an empty prefix cache. @throws DetinferError why one could not start: memory is released then as before.
   */
  async resumeMemory(tags: readonly MemoryTag[]): Promise<void> {
    await this.exclusively('a resumption of memory', async () => {
      const left = [...this.released].filter((tag) => !tags.includes(tag));
      if (this.isReleased && left.length === 0) await this.reopenAll();
      for (const tag of tags) this.released.delete(tag);
    });
  }

  /** Empties all prefix caches, unless requests are live. */
  async flushCache(): Promise<{ success: boolean; message: string }> {
    if (this.requests.waitingCount > 0) {
      return { success: false, message: `${this.requests.waitingCount} requests wait for a worker` };
    }
    const answers = await Promise.allSettled(this.workers.map((worker) => worker.flushCache()));
    // The cache of a worker that died has gone with it.
    const results = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
    const refusal = results.find(({ success }) => !success);
    if (refusal) return refusal;
    this.requests.forgetCaches();
    return { success: true, message: 'the prefix cache is empty' };
  }

  async status(): Promise<ReplicasStatus> {
    const answers = await Promise.allSettled(this.workers.map((worker) => worker.status()));
    const replicas = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
    const scheduler = addStatuses(replicas);
    scheduler.waitingRequests += this.requests.waitingCount;
    scheduler.cacheHitRate = this.requests.cacheHitRate;
    const { isPaused, workerDeaths } = this;
    const releasedMemory = [...this.released].sort();
    return { scheduler, replicas, isPaused, releasedMemory, workerDeaths, replays: this.requests.replays };
  }

  /** Aborts what is live and ends all workers. */
  async shutdown(): Promise<void> {
    await Promise.all(this.replicas.map((replica) => replica.close()));
  }

  private get workers() {
    return this.replicas.flatMap(({ worker }) => worker ?? []);
  }

  private makeReplica(
    index: number,
    args: ServerArgs,
    onProgress: WorkerHandlers['onProgress'],
    start: typeof startWorker,
  ): Replica {
    const replica: Replica = new Replica(
      index,
      args,
      {
        log: this.handlers.log,
        onProgress,
        onStep: (events) => this.requests.onStep(events),
        onUp: () => this.requests.dispatch(),
        onDown: (error, wasKilled) => {
          this.workerDeaths++;
          this.requests.onDown(replica, error, wasKilled);
        },
        onStartFailed: (error) => this.onStartFailed(error),
      },
      start,
    );
    return replica;
  }

  /** The first worker measures the memory. The others get a KV cache of the same size: answers may depend on it. */
  private async openAll(): Promise<void> {
    const [first, ...others] = this.replicas;
    this.engineInfo = await first!.open(null);
    this.requests.open(this.engineInfo);
    await Promise.all(others.map((replica) => replica.open(this.engineInfo.maxTotalTokens)));
  }

  private async leaveAll(): Promise<void> {
    await Promise.all(this.replicas.map((replica) => replica.leave(this.args.modelPath)));
  }

  private async reopenAll(): Promise<void> {
    const { modelPath } = this.args;
    const results = await Promise.allSettled(this.replicas.map((replica) => replica.reload(modelPath, this.info)));
    const failure = results.find((result) => result.status === 'rejected');
    if (failure === undefined) return;
    await this.leaveAll();
    throw failure.reason;
  }

  private async exclusively<T>(name: string, run: () => Promise<T>): Promise<T> {
    if (this.underWay !== null) throw new DetinferError('NOT_READY', `${this.underWay} is under way`);
    this.underWay = name;
    try {
      return await run();
    } finally {
      this.underWay = null;
    }
  }

  /** One worker that never comes back must not end a server whose others do. */
  private onStartFailed(error: DetinferError): void {
    if (this.replicas.some(({ failedStarts }) => failedStarts < MAX_FAILED_STARTS)) return;
    const message = `no worker could be started any more: ${error.message}`;
    void this.shutdown();
    this.handlers.onExit(new DetinferError(error.code, message), false);
  }
}
