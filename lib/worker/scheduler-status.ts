import type { SchedulerStatus } from '../protocol/messages.js';

/** Several schedulers taken as one. Its cache hit rate is left at 0: rates do not add up. */
export function addStatuses(statuses: readonly SchedulerStatus[]): SchedulerStatus {
  const sum = (key: keyof SchedulerStatus): number => statuses.reduce((total, status) => total + status[key], 0);
  return {
    runningRequests: sum('runningRequests'),
    waitingRequests: sum('waitingRequests'),
    totalTokens: sum('totalTokens'),
    usedTokens: sum('usedTokens'),
    cachedTokens: sum('cachedTokens'),
    cacheHitRate: 0,
    preemptions: sum('preemptions'),
    evictions: sum('evictions'),
    steps: sum('steps'),
    engineCpuSeconds: sum('engineCpuSeconds'),
  };
}
