import type {
  EngineInfo,
  FinishReason,
  LogprobRequest,
  RequestEvent,
  TokenLogprob,
  WorkerRequest,
} from '../../../lib/protocol/messages.js';
import { DetinferError } from '../../../lib/protocol/errors.js';
import type { WorkerHandle, WorkerHandlers } from '../../../lib/worker/supervisor.js';

export const FAKE_INFO: EngineInfo = {
  numericContract: 'detinfer-numerics/1',
  modelType: 'fake',
  architectures: ['FakeForCausalLM'],
  device: 'cpu',
  deviceName: 'fake',
  dtype: 'bfloat16',
  attentionBackend: 'fa3',
  vocabSize: 4096,
  contextLength: 512,
  eosTokenIds: [4095, 4093],
  pageSize: 16,
  maxTotalTokens: 4096,
  maxRunningRequests: 8,
  chunkedPrefillSize: -1,
  weightBytes: 0,
  weightBytesPerToken: 0,
  kvBytesPerToken: 0,
  kvBytes: 0,
  threads: 1,
};

interface Live {
  request: WorkerRequest;
  sent: number;
}

/**
 * A worker in this process: a step per turn of the event loop, in which every live request gets the next token of its
 * script. Scripts are the tokens of `script(request)`, or else counting up from the sum of the prompt and the seed.
 */
export class FakeWorker implements WorkerHandle {
  readonly info: EngineInfo;
  readonly pid = 0;
  readonly submitted: WorkerRequest[] = [];
  readonly aborted: { id: string; message: string }[] = [];
  isShutDown = false;
  isDead = false;
  handlers: Pick<WorkerHandlers, 'onStep' | 'onExit'> = { onStep: () => {}, onExit: () => {} };
  script: (request: WorkerRequest) => number[] | null = () => null;
  /** Tokens that one event of a request carries. */
  tokensPerStep = 1;
  /** Events that a request ends with instead of tokens, by its first prompt token. */
  failures = new Map<number, FinishReason>();
  /** First prompt tokens of requests that the worker dies of as soon as it runs them. */
  killers = new Set<number>();
  /** How often its cache was to be emptied. */
  flushes = 0;
  private readonly live = new Map<string, Live>();
  private isScheduled = false;
  private isPaused = false;

  constructor(info: Partial<EngineInfo> = {}) {
    this.info = { ...FAKE_INFO, ...info };
  }

  get liveCount(): number {
    return this.live.size;
  }

  submit(requests: WorkerRequest[]): void {
    // A process gets a copy of what it is sent.
    for (const request of structuredClone(requests)) {
      if (this.live.has(request.id)) throw new Error(`id ${request.id} is in use`);
      this.submitted.push(request);
      this.live.set(request.id, { request, sent: request.outputIds.length });
    }
    this.schedule();
  }

  abort(ids: string[], message: string): void {
    const events: RequestEvent[] = [];
    for (const id of ids) {
      if (!this.live.delete(id)) continue;
      this.aborted.push({ id, message });
      events.push({ id, tokens: [], finish: { type: 'abort', message } });
    }
    setImmediate(() => this.emit(events));
  }

  async flushCache(): Promise<{ success: boolean; message: string }> {
    this.flushes++;
    return this.live.size > 0 ? { success: false, message: 'requests run' } : { success: true, message: 'flushed' };
  }

  async status() {
    return {
      runningRequests: this.live.size,
      waitingRequests: 0,
      totalTokens: this.info.maxTotalTokens,
      usedTokens: 0,
      cachedTokens: 0,
      cacheHitRate: 0,
      preemptions: 0,
      evictions: 0,
      steps: 0,
      engineCpuSeconds: 0,
    };
  }

  setPaused(isPaused: boolean): void {
    if (isPaused) this.pause();
    else this.resume();
  }

  /** Ends as a process does that crashes, or that somebody kills. */
  die(wasKilled = false): void {
    this.isDead = true;
    this.live.clear();
    this.handlers.onExit(new DetinferError('WORKER_DIED', 'the worker process was killed'), wasKilled);
  }

  async shutdown(): Promise<void> {
    this.isShutDown = true;
    this.live.clear();
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
    this.schedule();
  }

  /** One step, also while paused. */
  step(): void {
    if ([...this.live.values()].some(({ request }) => this.killers.has(request.inputIds[0]!))) return this.die();
    const events = [...this.live.values()].map((entry) => this.advance(entry));
    for (const { id, finish } of events) if (finish) this.live.delete(id);
    this.emit(events);
  }

  /** A dead worker's events go nowhere. */
  private emit(events: RequestEvent[]): void {
    if (!this.isDead) this.handlers.onStep(events);
  }

  private schedule(): void {
    if (this.isScheduled || this.isPaused || this.live.size === 0) return;
    this.isScheduled = true;
    setImmediate(() => {
      this.isScheduled = false;
      if (this.isPaused) return;
      this.step();
      this.schedule();
    });
  }

  private advance(entry: Live): RequestEvent {
    const { request } = entry;
    const failure = this.failures.get(request.inputIds[0]!);
    if (failure) return { id: request.id, tokens: [], finish: failure };
    const event: RequestEvent = { id: request.id, tokens: [] };
    if (entry.sent === 0) event.prompt = { cachedTokens: 0, logprobs: promptLogprobs(request) };
    const room = Math.min(request.stop.maxNewTokens, this.info.contextLength - request.inputIds.length);
    for (let i = 0; i < this.tokensPerStep && entry.sent < room && !event.finish; ++i) {
      const token = this.tokenAt(request, entry.sent);
      event.tokens.push(token);
      entry.sent += 1;
      if (request.stop.stopTokenIds.includes(token)) event.finish = { type: 'stop', matched: token };
    }
    if (!event.finish && entry.sent >= room) event.finish = { type: 'length', length: entry.sent };
    if (request.logprobs) event.logprobs = event.tokens.map((token) => logprobOf(token, request.logprobs!));
    return event;
  }

  private tokenAt({ inputIds, sampling, ...request }: WorkerRequest, position: number): number {
    const script = this.script({ inputIds, sampling, ...request });
    if (script) return script[position % script.length]!;
    const start = inputIds.reduce((sum, id) => sum + id, 0) + (sampling.temperature === 0 ? 0 : sampling.seed);
    return (start + position) % 4000;
  }
}

/** An f32, as the engine's are. */
export function fakeLogprob(token: number): number {
  return Math.fround(-1 / (token + 3));
}

function logprobOf(tokenId: number, { top, tokenIds }: LogprobRequest): TokenLogprob {
  const entry: TokenLogprob = { tokenId, logprob: fakeLogprob(tokenId) };
  if (top > 0) entry.top = Array.from({ length: top }, (_, i) => [fakeLogprob(i), i]);
  if (tokenIds.length > 0) entry.ids = tokenIds.map((id) => [fakeLogprob(id), id]);
  return entry;
}

function promptLogprobs({ inputIds, logprobs }: WorkerRequest): TokenLogprob[] {
  if (!logprobs) return [];
  return inputIds.slice(logprobs.promptStart).map((id, i) => {
    const entry = logprobOf(id, logprobs);
    if (i > 0) return entry;
    return { ...entry, logprob: null, ...(entry.top ? { top: null } : {}), ...(entry.ids ? { ids: null } : {}) };
  });
}
