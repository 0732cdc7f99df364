import chalk from 'chalk';
import type { EngineInfo } from '../protocol/messages.js';
import type { ServerArgs } from '../protocol/server-args.js';
import { formatBytes } from './format.js';

/** The first lines of a start: who this is and what it is about to load. */
export function openingBanner(args: ServerArgs, version: string, contract: string): string {
  const model = args.isDemoModel ? `the demo model that ships with detinfer (${args.modelPath})` : args.modelPath;
  const lines = [`${chalk.bold.cyan('detinfer')} ${version} ${chalk.dim(`(${contract})`)}`, row('model', model)];
  const advice = 'No --model-path was given. Serve your own with --model-path FOLDER or a name on the hub.';
  if (args.isDemoModel) lines.push(row('', chalk.dim(advice)));
  return lines.join('\n');
}

/** What was loaded and where it runs. */
export function engineBanner(info: EngineInfo, args: ServerArgs): string {
  const tokens = (count: number): string => count.toLocaleString('en-US');
  const workers = args.dpSize === 1 ? [] : [row('workers', `${args.dpSize}, each with all of the following`)];
  return [
    ...workers,
    row('architecture', `${info.architectures.join(', ')}, context of ${tokens(info.contextLength)} tokens`),
    row('device', device(info, args)),
    row('dtype', info.dtype),
    row('attention', attention(info)),
    row('sampling', args.enableDeterministicInference ? 'seed 42 unless a request names another' : 'a fresh seed per request'),
    row('weights', formatBytes(info.weightBytes)),
    row('KV cache', `${formatBytes(info.kvBytes)}: ${tokens(info.maxTotalTokens)} tokens in pages of ${info.pageSize}`),
  ].join('\n');
}

/** A command that asks the server that listens at `url` for an answer, ready to paste. */
export function curlExample(url: string, args: ServerArgs): string {
  const prompt = args.skipTokenizerInit ? { input_ids: [1, 2, 3] } : { text: 'Tell me a joke' };
  const body = JSON.stringify({ ...prompt, sampling_params: { temperature: 0, max_new_tokens: 48 } });
  const key = args.apiKey === null ? '' : ` -H 'Authorization: Bearer YOUR_KEY'`;
  return `curl ${url}/generate${key} -H 'Content-Type: application/json' -d '${body}'`;
}

function device({ device, deviceName, threads }: EngineInfo, { baseGpuId, dpSize }: ServerArgs): string {
  if (device === 'cuda') {
    const gpus = dpSize === 1 ? `GPU ${baseGpuId}` : `GPUs ${baseGpuId} to ${baseGpuId + dpSize - 1}`;
    return `cuda (${gpus}: ${deviceName})`;
  }
  return `${device} (${deviceName}, ${threads} ${threads === 1 ? 'thread' : 'threads'})`;
}

/** On a CPU every backend's name runs the same code; elsewhere each has its own kernels for the same bits. */
function attention(info: EngineInfo): string {
  if (info.device !== 'cpu') return info.attentionBackend;
  return `${info.attentionBackend} (on a CPU, fa3, flashinfer and triton are all the contract's attention)`;
}

function row(name: string, value: string): string {
  return `  ${chalk.dim(name.padEnd(13))}${value}`;
}
