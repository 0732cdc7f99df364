import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { chooseDevice } from '../engine/probe.js';
import { NUMERIC_CONTRACT } from '../protocol/contract.js';
import type { Device, LoadFormat, ServerArgs } from '../protocol/server-args.js';
import { type ModelSource, modelDigests } from '../receipt/model-digests.js';
import { invalid, parseReceipt } from '../receipt/read.js';
import type { Receipt } from '../receipt/receipt.js';
import { readPublicKey, signatureProblem } from '../receipt/signature.js';
import { addFlags, exitWithTwoOnBadFlags, printLines, setExitCode, type ClientFlag } from './client-command.js';
import { ENGINE_FLAGS } from './engine-flags.js';
import { integer, text, threadCount } from './flag-values.js';
import { createLog } from './log.js';
import { findModelFolders } from './model-source.js';
import { ensureAddons } from './native-build.js';
import { DEMO_MODEL_PATH } from './package.js';
import { toServerArgs } from './server-flags.js';

interface Flags {
  modelPath?: string;
  tokenizerPath?: string;
  revision?: string;
  loadFormat: LoadFormat;
  jsonModelOverrideArgs: string;
  device?: Device;
  baseGpuId: number;
  threads?: number;
  publicKey?: string;
}

const FLAGS: ClientFlag[] = [
  { flags: '--model-path <model>', help: 'model folder or name on the hub (the demo model by default)', parse: text() },
  { flags: '--tokenizer-path <model>', help: "folder or name on the hub (the model's by default)", parse: text() },
  { flags: '--revision <name>', help: 'branch, tag or commit of a --model-path on the hub', parse: text() },
  ...ENGINE_FLAGS,
  { flags: '--base-gpu-id <n>', help: 'index of the GPU', preset: 0, parse: integer({ min: 0 }) },
  { flags: '--threads <n>', help: 'CPU threads (all cores by default)', parse: threadCount },
  {
    flags: '--public-key <file>',
    help: 'public key of Ed25519 (PEM) that must have signed the receipt',
    parse: text(),
  },
];

/** `detinfer verify`: exit code 0 when an answer is as its receipt says, 1 when not, 2 when it could not be checked. */
export function defineVerify(command: Command): void {
  command.argument('<receipt>', 'file with the meta_info.receipt of an answer');
  addFlags(exitWithTwoOnBadFlags(command), FLAGS)
    .addHelpText('after', '\nExit code 0: VERIFIED; 1: DIFFERENT, with the first token that is; 2: could not check.')
    .action(async (path: string) => {
      await setExitCode(() => verify(path, command.opts<Flags>()));
    });
}

async function verify(path: string, flags: Flags): Promise<number> {
  const receipt = parseReceipt(await readReceipt(path));
  const unchecked: string[] = [];
  if (flags.publicKey !== undefined) {
    const problem = signatureProblem(receipt, readPublicKey(flags.publicKey));
    if (problem !== null) return report([`DIFFERENT: ${problem}`], [], 1);
  } else if (receipt.signature !== undefined) {
    unchecked.push('the signature: pass --public-key');
  }
  if (receipt.numeric_contract !== NUMERIC_CONTRACT) {
    throw invalid(
      `The receipt is of the contract ${receipt.numeric_contract}, and this detinfer has ${NUMERIC_CONTRACT}. ` +
        'Check it with a version that has the same.',
    );
  }
  const args = await localArgs(receipt, flags);
  await checkModel(receipt, args);
  // The other commands must work without the native engine, which this loads.
  const [{ audit }, { loadEngine }] = await Promise.all([import('../audit/audit.js'), import('../engine/engine.js')]);
  const engine = loadEngine(args, () => {});
  const verdict = audit(receipt, engine, args.skipTokenizerInit ? null : args.tokenizerPath);
  engine.close();
  if (verdict.difference !== null) return report([`DIFFERENT: ${verdict.difference}`], [], 1);
  const { device, deviceName } = engine.info;
  const what = `${receipt.output_ids.length} output tokens, ids and log-probabilities`;
  const signed = flags.publicKey === undefined ? [] : [`Signed by ${receipt.signature!.key}`];
  const verified = `VERIFIED: ${what}, computed again on ${device} (${deviceName})`;
  return report([verified, ...signed], [...unchecked, ...verdict.unchecked], 0);
}

function report(lines: string[], unchecked: string[], code: number): number {
  printLines([...lines, ...unchecked.map((what) => `Not checked: ${what}`)]);
  return code;
}

async function readReceipt(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw invalid(`cannot read ${path}: ${(error as Error).message}`);
  }
}

/** The flags of an engine with room for this receipt alone, and the model in local folders. */
async function localArgs(receipt: Receipt, flags: Flags): Promise<ServerArgs> {
  const log = createLog('info', 'text', process.stderr);
  const choice = flags.device === undefined ? chooseDevice() : { device: flags.device, note: null };
  if (choice.note !== null) log('warning', choice.note);
  const { publicKey: _, ...given } = flags;
  const defined = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const skipTokenizerInit = receipt.model.tokenizer === null;
  const args = toServerArgs({ ...defined, device: choice.device, skipTokenizerInit }, DEMO_MODEL_PATH);
  const tokens = receipt.prompt_ids.length + receipt.output_ids.length;
  const maxTotalTokens = Math.ceil(tokens / args.pageSize) * args.pageSize;
  const { model, tokenizer } = await findModelFolders(args, log);
  if (args.device === 'cpu') ensureAddons(log);
  // A GPU may be in use: what is free is enough if it holds the model and this one answer.
  return { ...args, maxTotalTokens, memFractionStatic: 1, modelPath: model, tokenizerPath: tokenizer };
}

async function checkModel({ model }: Receipt, source: ModelSource): Promise<void> {
  const found = await modelDigests(source);
  for (const part of ['config', 'weights', 'tokenizer'] as const) {
    if (found[part] === model[part]) continue;
    throw invalid(
      `The receipt is of another model: the digest of ${part} is ${model[part]} there, and ${found[part]} here. ` +
        'Pass the model that answered, with the same --json-model-override-args and --load-format.',
    );
  }
}
