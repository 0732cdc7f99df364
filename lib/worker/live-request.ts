import type { WorkerRequest } from '../protocol/messages.js';
import type { Replica } from './replica.js';

/** Workers that one request may take down before it fails. */
export const MAX_DEATHS = 3;

/** A request that has not ended. */
export interface LiveRequest {
  /** Its outputIds grow with every event. */
  request: WorkerRequest;
  arrival: number;
  /** Null: it waits for one. */
  replica: Replica | null;
  /** Whether its worker has done something for it since it got it. */
  isProven: boolean;
  /** Workers that died under it since anything was last done for it, and were not killed by somebody. */
  deaths: number;
  /** Why it was aborted, if it was. */
  abortMessage: string | null;
}

/** @param arrival its number in the order of arrival. */
export function newLiveRequest(request: WorkerRequest, arrival: number): LiveRequest {
  return {
    request: { ...request, outputIds: [...request.outputIds] },
    arrival,
    replica: null,
    isProven: false,
    deaths: 0,
    abortMessage: null,
  };
}

/** One message for all of them, so that the worker's next step sees them together. */
export function submitTo({ worker }: Replica, entries: LiveRequest[]): void {
  worker!.submit(entries.map(({ request }) => request));
}

export function groupByReplica(entries: LiveRequest[]): Map<Replica | null, LiveRequest[]> {
  const groups = new Map<Replica | null, LiveRequest[]>();
  for (const entry of entries) {
    const group = groups.get(entry.replica);
    if (group === undefined) groups.set(entry.replica, [entry]);
    else group.push(entry);
  }
  return groups;
}

/** Whether it may be what workers die of, so that it must be tried by itself. */
export function isSuspect({ deaths }: LiveRequest): boolean {
  return deaths >= MAX_DEATHS - 1;
}
