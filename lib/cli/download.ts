import type { Command } from 'commander';
import { isRepoName } from '../hub/names.js';
import { DetinferError } from '../protocol/errors.js';
import { addFlags } from './client-command.js';
import { text } from './flag-values.js';
import { createLog } from './log.js';
import { DEFAULT_REVISION, fromHub } from './model-source.js';

/** `detinfer download`: brings a model into the cache and prints its folder, alone on standard output. */
export function defineDownload(command: Command): void {
  command.argument('<model>', 'name on the hub: organization/model');
  addFlags(command, [
    { flags: '--revision <name>', help: 'branch, tag or commit', preset: DEFAULT_REVISION, parse: text() },
  ]);
  command.action(async (model: string) => {
    if (!isRepoName(model)) {
      throw new DetinferError('INVALID_FLAG', `'${model}' is no name of a model on the hub, such as Qwen/Qwen3-8B.`);
    }
    const needs = { config: true, weights: true, tokenizer: true };
    const { revision } = command.opts<{ revision: string }>();
    const folder = await fromHub(model, revision, needs, createLog('info', 'text', process.stderr));
    process.stdout.write(`${folder}\n`);
  });
}
