import type { Command } from 'commander';

/** A command, as far as it is known before it is called. */
export interface CommandEntry {
  name: string;
  aliases: string[];
  description: string;
  /** Loads what adds the flags and the action. */
  load: () => Promise<(command: Command) => void>;
}

/** Only the command that is called is loaded: loading all takes longer than most of them run. */
export const COMMANDS: CommandEntry[] = [
  {
    name: 'launch',
    aliases: [],
    description: 'serve a model over HTTP with the API and the flags of sglang.launch_server',
    load: async () => (await import('./launch.js')).defineLaunch,
  },
  {
    name: 'download',
    aliases: [],
    description: 'download a model of the hub into the cache, and print the folder that it is in',
    load: async () => (await import('./download.js')).defineDownload,
  },
  {
    name: 'test',
    aliases: ['test-deterministic'],
    description: 'check over HTTP that a server gives the same bits in any batch, cached or not',
    load: async () => (await import('./test.js')).defineTest,
  },
  {
    name: 'verify',
    aliases: [],
    description: 'compute an answer again from its receipt, on any device, and compare every bit',
    load: async () => (await import('./verify.js')).defineVerify,
  },
  {
    name: 'bench',
    aliases: [],
    description: 'measure a server, the engine or its kernels',
    load: async () => (await import('./bench.js')).defineBench,
  },
];
