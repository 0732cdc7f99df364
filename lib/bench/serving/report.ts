import type { CpuUsage } from './cpu-usage.js';
import type { Distribution } from './metrics.js';
import type { ServingReport } from './run.js';

/** Seconds of CPU time below which the steps of 0.01 s, in which it is counted, say too little. */
const LEAST_CPU_SECONDS = 0.05;

/** The result as lines for a terminal. */
export function formatServing({ url, server, options, metrics, cpu, firstError }: ServingReport): string[] {
  const lines = [
    `Server ${url}${server.modelPath === null ? '' : ` (${server.modelPath})`}`,
    '',
    row('Successful requests', String(metrics.completed)),
    row('Failed requests', `${metrics.failed}${firstError === null ? '' : ` (first: ${firstError})`}`),
    row('Request rate', options.requestRate === null ? 'all at once' : `${options.requestRate}/s`),
    row('Max concurrency', options.maxConcurrency === null ? 'no limit' : String(options.maxConcurrency)),
    row('Duration', `${metrics.durationSeconds.toFixed(2)} s`),
    row('Input tokens', String(metrics.totalInputTokens)),
    row('Generated tokens', String(metrics.totalOutputTokens)),
    row('Request throughput', `${metrics.requestThroughput.toFixed(2)} requests/s`),
    row('Input throughput', `${metrics.inputThroughput.toFixed(1)} tokens/s`),
    row('Output throughput', `${metrics.outputThroughput.toFixed(1)} tokens/s`),
    row('Concurrency', metrics.concurrency.toFixed(2)),
  ];
  if (cpu !== null) {
    const cores = (seconds: number): string => (seconds / metrics.durationSeconds).toFixed(2);
    const { server, worker, client } = cpu;
    lines.push(
      row('CPU cores in use', `server ${cores(server)}, worker ${cores(worker)}, this client ${cores(client)}`),
      row('CPU time per token', cpuPerToken(cpu, metrics.totalOutputTokens)),
    );
  }
  return [
    ...lines,
    '',
    `${''.padEnd(LABEL)}${['mean', 'median', 'p90', 'p95', 'p99'].map((name) => name.padStart(NUMBER)).join('')}`,
    distributionRow('End-to-end latency (ms)', metrics.endToEndMs),
    distributionRow('Time to first token (ms)', metrics.timeToFirstTokenMs),
    distributionRow('Time per output token (ms)', metrics.timePerOutputTokenMs),
    distributionRow('Inter-token latency (ms)', metrics.interTokenMs),
  ];
}

const LABEL = 28;
const NUMBER = 11;

function cpuPerToken({ server, worker, engine }: CpuUsage, tokens: number): string {
  if (Math.min(server, worker - engine) < LEAST_CPU_SECONDS) return 'too short a run to tell';
  const perToken = (seconds: number): string => `${((1e6 * seconds) / tokens).toFixed(1)} µs`;
  return `server ${perToken(server)}, worker without engine ${perToken(worker - engine)}`;
}

function row(label: string, value: string): string {
  return `${label.padEnd(LABEL)}${value}`;
}

function distributionRow(label: string, { mean, median, p90, p95, p99 }: Distribution): string {
  const cells = [mean, median, p90, p95, p99].map((value) => value.toFixed(2).padStart(NUMBER));
  return `${label.padEnd(LABEL)}${cells.join('')}`;
}
