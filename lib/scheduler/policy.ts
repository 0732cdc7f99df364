/** What the prefill of a step may hold, in tokens. At least 1, but for the -1. */
export interface PrefillLimits {
  /** Prompt tokens of one request in a step; -1: a prompt is never cut. */
  chunkedPrefillSize: number;
  /** Prompt tokens of all requests in a step. An uncut prompt may exceed it when it is the only one of its step. */
  maxPrefillTokens: number;
}

/**
 * Number of tokens that a request computes in the next step; 0: it waits for a later one. Requests are asked in order
 * of arrival. A request with one token left, such as a decode, always gets it, so a long prompt delays decodes by no more
 * than one step's prefill; and prefill has a budget of its own, so decodes never keep a prompt from progressing.
 * @param pending tokens that are known, but not computed.
 * @param prefillTokens tokens that this step already gave to requests with more than one pending.
 */
export function chunkLength(pending: number, prefillTokens: number, limits: PrefillLimits): number {
  if (pending === 1) return 1;
  const budget = Math.max(0, limits.maxPrefillTokens - prefillTokens);
  if (limits.chunkedPrefillSize > 0) return Math.min(pending, limits.chunkedPrefillSize, budget);
  return prefillTokens === 0 || pending <= budget ? pending : 0;
}

/** What an admission depends on. Counts are pages, except `running`. */
export interface AdmissionState {
  /** Number of running requests. */
  running: number;
  /** Pages that are free or evictable once the request holds its cached prefix. */
  available: number;
  /** Sum of pageDemand() over the running requests. */
  reserved: number;
  /** pageDemand() of the request. */
  demand: number;
}

/**
 * Pages that a request should find: what its known tokens lack, and one to grow into, so that it isn't admitted only
 * to be preempted a few steps later.
 */
export function pageDemand(knownTokens: number, heldPages: number, pageSize: number): number {
  return Math.ceil(knownTokens / pageSize) - heldPages + 1;
}

/** Whether there are pages for a waiting request. With nothing else running there are: its size was checked on arrival. */
export function mayStart({ running, available, reserved, demand }: AdmissionState): boolean {
  return running === 0 || reserved + demand <= available;
}
