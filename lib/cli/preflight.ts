import { createServer } from 'node:net';
import { readModelFolder } from '../engine/model-folder.js';
import { checkOptions } from '../engine/options.js';
import { gpuProblem } from '../engine/probe.js';
import { DetinferError } from '../protocol/errors.js';
import type { ServerArgs } from '../protocol/server-args.js';
import { readSigningKey } from '../receipt/signature.js';
import type { Log } from '../server/context.js';
import type { ModelFolders } from '../server/server.js';
import { findModelFolders } from './model-source.js';

/**
 * Finds what would make a start fail before anything slow begins, and the folders to serve from, into which a model of
 * the hub is downloaded.
 * @throws DetinferError INVALID_FLAG, UNSUPPORTED, INVALID_MODEL, ENGINE_FAILED, or those of a download
 */
export async function preflight(args: ServerArgs, log: Log): Promise<ModelFolders> {
  checkOptions(args);
  await checkPort(args.host, args.port);
  if (args.signingKey !== null) readSigningKey(args.signingKey);
  const problem = args.device === 'cuda' ? gpuProblem(args.baseGpuId, args.dpSize) : null;
  if (problem !== null) throw problem;
  const folders = await findModelFolders(args, log);
  checkModelFolder(args, folders.model);
  return folders;
}

function checkModelFolder(args: ServerArgs, modelPath: string): void {
  const folder = readModelFolder(modelPath, args.jsonModelOverrideArgs);
  if (args.contextLength !== null && args.contextLength > folder.contextLength) {
    throw new DetinferError(
      'INVALID_FLAG',
      `--context-length ${args.contextLength}: the model was made for at most ${folder.contextLength} tokens.`,
    );
  }
}

/** Binds the address for a moment: a port in use is found before weights are loaded. */
async function checkPort(host: string, port: number): Promise<void> {
  const probe = createServer();
  await new Promise<void>((resolve, reject) => {
    probe.once('error', (error: NodeJS.ErrnoException) => reject(explainListenError(error, host, port)));
    probe.listen({ host, port, exclusive: true }, () => probe.close(() => resolve()));
  });
}

function explainListenError(error: NodeJS.ErrnoException, host: string, port: number): DetinferError {
  const reasons: Record<string, string> = {
    EADDRINUSE: `port ${port} of ${host} is in use. Stop the program that listens there, or pass another --port.`,
    EACCES: `port ${port} needs privileges that this process does not have. Pass a --port above 1023.`,
    EADDRNOTAVAIL: `--host ${host} is no address of this machine. Use 127.0.0.1, or 0.0.0.0 for all of them.`,
    ENOTFOUND: `--host ${host} is not known. Use 127.0.0.1, or 0.0.0.0 for all addresses of this machine.`,
  };
  const reason = reasons[error.code ?? ''] ?? `cannot listen on port ${port} of ${host}: ${error.message}`;
  return new DetinferError('INVALID_FLAG', reason, { cause: error });
}
