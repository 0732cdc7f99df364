import { DetinferError } from '../protocol/errors.js';
import type { EngineInfo, FinishReason, RequestEvent, WorkerRequest } from '../protocol/messages.js';
import { groupByReplica, isSuspect, type LiveRequest, MAX_DEATHS, newLiveRequest, submitTo } from './live-request.js';
import { PrefixRouter } from './prefix-router.js';
import type { Replica } from './replica.js';
import type { WorkerHandlers } from './supervisor.js';

/**
 * Has all requests until they end, and gives them to replicas. When a worker dies, those that it had go on, in another
 * worker, behind the tokens that they have. Since the numeric contract leaves a worker no choice, nobody can see it in
 * an answer.
 *
 * A request that takes its workers down must not do so for ever, nor take others with it. Once two workers in a row
 * died before they did anything for it, a request is a suspect: suspects are tried one at a time, in a worker where all
 * other requests have proved that it can run them. One whose trial ends with the death of the worker fails.
 */
export class Dispatcher {
  /** How often a request was taken up by another worker. */
  replays = 0;
  private readonly live = new Map<string, LiveRequest>();
  /** In order of arrival. */
  private waiting: LiveRequest[] = [];
  /** The suspect that is tried. */
  private trial: LiveRequest | null = null;
  private router!: PrefixRouter;
  private arrivals = 0;
  private promptTokens = 0;
  private cachedTokens = 0;
  /** Requests from this arrival on are held. */
  private heldFrom = Infinity;
  /** Of drain(). */
  private onDrained: () => void = () => {};

  constructor(
    private readonly replicas: readonly Replica[],
    private readonly handlers: Pick<WorkerHandlers, 'log' | 'onStep'>,
  ) {}

  /** Before any request. @param info of each worker. */
  open({ pageSize, maxTotalTokens }: EngineInfo): void {
    this.router = new PrefixRouter(this.replicas.length, pageSize, Math.floor(maxTotalTokens / pageSize));
  }

  /** Requests that no worker has. */
  get waitingCount(): number {
    return this.waiting.length;
  }

  /** Requests that have not ended and that nobody has aborted. */
  get activeCount(): number {
    return [...this.live.values()].filter(({ abortMessage }) => abortMessage === null).length;
  }

  /** Share of the prompt tokens of all requests so far that were found in a prefix cache. */
  get cacheHitRate(): number {
    return this.promptTokens === 0 ? 0 : this.cachedTokens / this.promptTokens;
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
  abort(ids: Iterable<string>, message: string): void {
    const entries = [...ids].flatMap((id) => this.live.get(id) ?? []);
    for (const entry of entries) entry.abortMessage = message;
    for (const [replica, group] of groupByReplica(entries)) {
      const groupIds = group.map(({ request }) => request.id);
      if (replica === null) this.end(group, { type: 'abort', message });
      else replica.worker!.abort(groupIds, message);
    }
    this.waiting = this.waiting.filter(({ abortMessage }) => abortMessage === null);
  }

  abortAll(message: string): void {
    this.abort(this.live.keys(), message);
  }

  /** Takes in what a worker did. */
  onStep(events: RequestEvent[]): void {
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

  /** The worker of a replica is gone: others take its requests up. @param wasKilled see WorkerHandlers.onExit */
  onDown(replica: Replica, error: DetinferError, wasKilled: boolean): void {
    this.router.forget(replica.index);
    const entries = [...this.live.values()].filter((entry) => entry.replica === replica);
    const unproven = entries.filter(({ isProven }) => !isProven);
    for (const entry of entries) {
      entry.replica = null;
      if (!wasKilled) entry.deaths++;
    }
    const [culprit] = !wasKilled && unproven.length === 1 ? unproven.filter(({ deaths }) => deaths >= MAX_DEATHS) : [];
    if (culprit) this.convict(culprit, error);
    const others = entries.filter((entry) => entry !== culprit);
    const kept = others.filter(({ abortMessage }) => abortMessage === null);
    this.waiting.push(...kept);
    this.replays += kept.length;
    this.endAborted(others);
    this.waiting.sort((a, b) => a.arrival - b.arrival);
    if (this.trial?.replica === null) this.trial = null;
    this.dispatch();
  }

  /** Gives waiting requests to workers, as far as there are some. */
  dispatch(): void {
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

  /** The prefix caches of all workers are empty. */
  forgetCaches(): void {
    for (const { index } of this.replicas) this.router.forget(index);
  }

  /** Requests that come from now on wait for letGo(). */
  hold(): void {
    this.heldFrom = this.arrivals;
  }

  /** All requests that wait now do so until letGo(), too. */
  holdAll(): void {
    this.heldFrom = 0;
  }

  letGo(): void {
    this.heldFrom = Infinity;
    this.dispatch();
  }

  /** Resolves when all requests that are not held have ended. */
  async drain(): Promise<void> {
    if (this.mustDrain) await new Promise<void>((resolve) => (this.onDrained = resolve));
  }

  /**
   * Takes all requests back from the workers, none of which may have output; those that were aborted end.
   * @throws DetinferError NOT_READY
   */
  withdrawAll(): void {
    const entries = [...this.live.values()];
    const kept = entries.filter(({ abortMessage }) => abortMessage === null);
    const begun = kept.filter(({ request }) => request.outputIds.length > 0).length;
    if (begun > 0) {
      const advice = 'continue generation, or pass abort_all_requests';
      throw new DetinferError('NOT_READY', `generation is paused in the middle of ${begun} answers: ${advice}`);
    }
    for (const entry of entries) entry.replica = null;
    this.waiting = kept;
    this.trial = null;
    this.endAborted(entries);
  }

  private get mustDrain(): boolean {
    return [...this.live.values()].some((entry) => !this.isHeld(entry));
  }

  private isHeld({ arrival }: LiveRequest): boolean {
    return arrival >= this.heldFrom;
  }

  private noticeDrained(): void {
    if (this.heldFrom !== Infinity && !this.mustDrain) this.onDrained();
  }

  private convict(entry: LiveRequest, error: DetinferError): void {
    const message = `the worker died ${MAX_DEATHS} times over this request, at last: ${error.message}`;
    this.handlers.log('error', `request ${entry.request.id} is given up: ${message}`);
    this.end([entry], { type: 'abort', message, code: 'WORKER_DIED' });
  }

  /** Ends those that were aborted, but whose worker will not say so any more. */
  private endAborted(entries: LiveRequest[]): void {
    for (const entry of entries) {
      if (entry.abortMessage !== null) this.end([entry], { type: 'abort', message: entry.abortMessage });
    }
  }

  /** Forgets requests that no worker has, and tells so once the caller is done. */
  private end(entries: LiveRequest[], finish: FinishReason): void {
    if (entries.length === 0) return;
    for (const { request } of entries) this.live.delete(request.id);
    const events = entries.map(({ request }) => ({ id: request.id, tokens: [], finish }));
    setImmediate(() => this.handlers.onStep(events));
    this.noticeDrained();
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
