import { DetinferError } from '../protocol/errors.js';
import type { EngineInfo, FinishReason, RequestEvent, SchedulerStatus, WorkerRequest } from '../protocol/messages.js';
import type { ServerArgs } from '../protocol/server-args.js';
import { groupByReplica, isSuspect, type LiveRequest, MAX_DEATHS, newLiveRequest, submitTo } from './live-request.js';
import { PrefixRouter } from './prefix-router.js';
import { Replica, replicaArgs } from './replica.js';
import { addStatuses } from './scheduler-status.js';
import { startWorker, type WorkerHandlers } from './supervisor.js';
import { checkNewWeights, reloadAll } from './weight-update.js';

/** Starts that may fail in a row before the server gives up. */
const MAX_FAILED_STARTS = 6;

export interface ReplicasStatus {
  /** All replicas together, and what waits for one. */
  scheduler: SchedulerStatus;
  /** One for each replica that is up. */
  replicas: SchedulerStatus[];
  isPaused: boolean;
  /** Workers that were lost since the start. */
  workerDeaths: number;
  /** How often a request was taken up by another worker. */
  replays: number;
}

/**
 * `--dp-size` workers that look like one that does not die. Requests are kept here until they end: when a worker dies,
 * those that it had go on, in another worker, behind the tokens that they have. Since the numeric contract leaves a
 * worker no choice, nobody can see it in an answer.
 *
 * A request that takes its workers down must not do so for ever, nor take others with it. Once two workers in a row died
 * before they did anything for it, a request is a suspect: suspects are tried one at a time, in a worker where all other
 * requests have proved that it can run them. One whose trial ends with the death of the worker fails.
 */
export class Replicas {
  private readonly replicas: Replica[] = [];
  private readonly live = new Map<string, LiveRequest>();
  /** In order of arrival. */
  private waiting: LiveRequest[] = [];
  /** The suspect that is tried. */
  private trial: LiveRequest | null = null;
  private router!: PrefixRouter;
  private engineInfo!: EngineInfo;
  private arrivals = 0;
  private workerDeaths = 0;
  private replays = 0;
  private promptTokens = 0;
  private cachedTokens = 0;
  private paused = false;
  /** Requests from this arrival on wait for the end of an update of the weights. */
  private heldFrom = Infinity;
  /** Of an update, which waits for the requests before it. */
  private onDrained: () => void = () => {};

  private constructor(
    private args: ServerArgs,
    /** onExit is called when no worker can be started any more. */
    private readonly handlers: WorkerHandlers,
    start: typeof startWorker,
  ) {
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
    return this.replicas.some(({ worker }) => worker !== null);
  }

  /** Whether no step is planned. Requests are taken anyway, and wait. */
  get isPaused(): boolean {
    return this.paused;
  }

  /** Requests that can run at the same time. */
  get capacity(): number {
    return this.replicas.length * this.info.maxRunningRequests;
  }

  submit(requests: WorkerRequest[]): void {
    for (const request of requests) {
      const entry = newLiveRequest(request, this.arrivals++);
      this.live.set(request.id, entry);
      this.waiting.push(entry);
    }
    this.dispatch();
  }

  /** Ends requests; each gets a last event, unless it has ended before. */
  abort(ids: string[], message: string): void {
    const entries = ids.flatMap((id) => this.live.get(id) ?? []);
    for (const entry of entries) entry.abortMessage = message;
    for (const [replica, group] of groupByReplica(entries)) {
      const groupIds = group.map(({ request }) => request.id);
      if (replica === null) this.end(group, { type: 'abort', message });
      else replica.worker!.abort(groupIds, message);
    }
    this.waiting = this.waiting.filter(({ abortMessage }) => abortMessage === null);
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
   * weights, and others are in the way.
   * @param abortMessage not null: requests that have come before are aborted.
   * @returns how many requests waited for it.
   * @throws DetinferError why the old weights are served still.
   */
  async updateWeights(modelPath: string, abortMessage: string | null): Promise<number> {
    if (this.heldFrom !== Infinity) throw new DetinferError('NOT_READY', 'another update of the weights is under way');
    checkNewWeights(modelPath, this.args, this.info);
    this.heldFrom = this.arrivals;
    try {
      if (abortMessage !== null) this.abort([...this.live.keys()], abortMessage);
      if (this.isPaused && abortMessage === null) this.withdrawAll();
      else await this.drain();
      this.heldFrom = 0;
      await reloadAll(this.replicas, this.args.modelPath, modelPath, this.info);
      this.args = { ...this.args, modelPath };
      return this.waiting.length;
    } finally {
      for (const { index } of this.replicas) this.router.forget(index);
      this.heldFrom = Infinity;
      this.dispatch();
    }
  }

  /** Empties all prefix caches, unless requests are live. */
  async flushCache(): Promise<{ success: boolean; message: string }> {
    if (this.waiting.length > 0) {
      return { success: false, message: `${this.waiting.length} requests wait for a worker` };
    }
    const answers = await Promise.allSettled(this.workers.map((worker) => worker.flushCache()));
    // The cache of a worker that died has gone with it.
    const results = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
    const refusal = results.find(({ success }) => !success);
    if (refusal) return refusal;
    for (const { index } of this.replicas) this.router.forget(index);
    return { success: true, message: 'the prefix cache is empty' };
  }

  async status(): Promise<ReplicasStatus> {
    const answers = await Promise.allSettled(this.workers.map((worker) => worker.status()));
    const replicas = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
    const scheduler = addStatuses(replicas);
    scheduler.waitingRequests += this.waiting.length;
    scheduler.cacheHitRate = this.promptTokens === 0 ? 0 : this.cachedTokens / this.promptTokens;
    const { isPaused, workerDeaths, replays } = this;
    return { scheduler, replicas, isPaused, workerDeaths, replays };
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
        onStep: (events) => this.onStep(events),
        onUp: () => this.dispatch(),
        onDown: (error, wasKilled) => this.onDown(replica, error, wasKilled),
        onStartFailed: (error, failures) => this.onStartFailed(error, failures),
      },
      start,
    );
    return replica;
  }

  /** The first worker measures the memory; the others get a KV cache of the same size, since answers may depend on it. */
  private async openAll(): Promise<void> {
    const [first, ...others] = this.replicas;
    this.engineInfo = await first!.open(null);
    const { pageSize, maxTotalTokens } = this.engineInfo;
    this.router = new PrefixRouter(this.replicas.length, pageSize, Math.floor(maxTotalTokens / pageSize));
    await Promise.all(others.map((replica) => replica.open(maxTotalTokens)));
  }

  private onStep(events: RequestEvent[]): void {
    let trialEnds = false;
    for (const event of events) {
      const entry = this.live.get(event.id);
      if (entry === undefined) continue;
      entry.isProven = true;
      entry.deaths = 0;
      for (const token of event.tokens) entry.request.outputIds.push(token);
      if (event.prompt) {
        this.promptTokens += entry.request.inputIds.length;
        this.cachedTokens += event.prompt.cachedTokens;
      }
      if (event.finish) {
        this.live.delete(event.id);
        entry.replica!.load--;
      }
      trialEnds ||= entry === this.trial;
    }
    this.handlers.onStep(events);
    this.noticeDrained();
    if (!trialEnds) return;
    this.trial = null;
    this.dispatch();
  }

  private get mustDrain(): boolean {
    return [...this.live.values()].some((entry) => !this.isHeld(entry));
  }

  private isHeld({ arrival }: LiveRequest): boolean {
    return arrival >= this.heldFrom;
  }

  /** Resolves when all requests that are not held have ended. */
  private async drain(): Promise<void> {
    if (this.mustDrain) await new Promise<void>((resolve) => (this.onDrained = resolve));
  }

  private noticeDrained(): void {
    if (this.heldFrom !== Infinity && !this.mustDrain) this.onDrained();
  }

  /** Takes all requests back from the workers, none of which may have output. */
  private withdrawAll(): void {
    const entries = [...this.live.values()];
    const begun = entries.filter(({ request }) => request.outputIds.length > 0).length;
    if (begun > 0) {
      const advice = 'continue generation, or pass abort_all_requests';
      throw new DetinferError('NOT_READY', `generation is paused in the middle of ${begun} answers: ${advice}`);
    }
    for (const entry of entries) entry.replica = null;
    this.waiting = entries;
    this.trial = null;
  }

  private onDown(replica: Replica, error: DetinferError, wasKilled: boolean): void {
    this.workerDeaths++;
    this.router.forget(replica.index);
    const entries = [...this.live.values()].filter((entry) => entry.replica === replica);
    const unproven = entries.filter(({ isProven }) => !isProven);
    for (const entry of entries) {
      entry.replica = null;
      if (!wasKilled) entry.deaths++;
    }
    const [culprit] = !wasKilled && unproven.length === 1 ? unproven.filter(({ deaths }) => deaths >= MAX_DEATHS) : [];
    if (culprit) this.convict(culprit, error);
    for (const entry of entries) {
      if (entry === culprit) continue;
      if (entry.abortMessage !== null) {
        this.end([entry], { type: 'abort', message: entry.abortMessage });
      } else {
        this.waiting.push(entry);
        this.replays++;
      }
    }
    this.waiting.sort((a, b) => a.arrival - b.arrival);
    if (this.trial?.replica === null) this.trial = null;
    this.dispatch();
  }

  private convict(entry: LiveRequest, error: DetinferError): void {
    const message = `the worker died ${MAX_DEATHS} times over this request, at last: ${error.message}`;
    this.handlers.log('error', `request ${entry.request.id} is given up: ${message}`);
    this.end([entry], { type: 'abort', message, code: 'WORKER_DIED' });
  }

  private onStartFailed(error: DetinferError, failures: number): void {
    if (failures < MAX_FAILED_STARTS || this.isUp) return;
    const message = `no worker could be started any more: ${error.message}`;
    void this.shutdown();
    this.handlers.onExit(new DetinferError(error.code, message), false);
  }

  /** Forgets requests that no worker has, and tells so once the caller is done. */
  private end(entries: LiveRequest[], finish: FinishReason): void {
    if (entries.length === 0) return;
    for (const { request } of entries) this.live.delete(request.id);
    const events = entries.map(({ request }) => ({ id: request.id, tokens: [], finish }));
    setImmediate(() => this.handlers.onStep(events));
    this.noticeDrained();
  }

  /** Gives waiting requests to workers, as far as there are some. */
  private dispatch(): void {
    this.startTrial();
    const open = this.replicas.filter((replica) => replica.worker !== null && replica !== this.trial?.replica);
    if (open.length === 0) return;
    const given = this.waiting.filter((entry) => !isSuspect(entry) && !this.isHeld(entry));
    this.waiting = this.waiting.filter((entry) => isSuspect(entry) || this.isHeld(entry));
    for (const entry of given) {
      this.assign(entry, this.replicas[this.router.choose(entry.request.inputIds, open)]!);
    }
    // One message for each worker, so that its first step sees all of them.
    for (const [replica, entries] of groupByReplica(given)) submitTo(replica!, entries);
  }

  private startTrial(): void {
    if (this.trial !== null) return;
    const suspect = this.waiting.find((entry) => isSuspect(entry) && !this.isHeld(entry));
    const [replica] = this.replicas.filter(({ worker }) => worker !== null).sort((a, b) => a.load - b.load);
    if (suspect === undefined || replica === undefined) return;
    this.trial = suspect;
    this.waiting = this.waiting.filter((entry) => entry !== suspect);
    this.assign(suspect, replica);
    submitTo(replica, [suspect]);
  }

  private assign(entry: LiveRequest, replica: Replica): void {
    entry.replica = replica;
    entry.isProven = false;
    replica.load++;
  }
}
