import { HttpStatusError, type HttpClient } from './http.js';

/** What a server says about itself. null: it doesn't say. */
export interface ServerFacts {
  modelPath: string | null;
  version: string | null;
  numericContract: string | null;
  device: string | null;
  attentionBackend: string | null;
  deterministic: boolean | null;
  skipTokenizerInit: boolean;
  vocabSize: number | null;
  /** Longest prompt plus output, in tokens: what the model takes and what fits into the KV cache. */
  contextLength: number | null;
}

/**
 * Reads /server_info, /model_info (or their older names) and /v1/models. An endpoint that a server lacks is no error.
 * @throws DetinferError UNREACHABLE, or BAD_RESPONSE when an endpoint exists and fails.
 */
export async function readServerFacts(client: HttpClient): Promise<ServerFacts> {
  const server = await readFirst(client, ['/server_info', '/get_server_info']);
  const model = await readFirst(client, ['/model_info', '/get_model_info']);
  const models = await readFirst(client, ['/v1/models']);
  const served = Array.isArray(models.data) ? ((models.data[0] ?? {}) as Record<string, unknown>) : {};
  return {
    modelPath: text(model.model_path) ?? text(server.model_path),
    version: text(server.version),
    numericContract: text(server.numeric_contract),
    device: text(server.device),
    attentionBackend: text(server.attention_backend),
    deterministic:
      typeof server.enable_deterministic_inference === 'boolean' ? server.enable_deterministic_inference : null,
    skipTokenizerInit: server.skip_tokenizer_init === true,
    vocabSize: count(model.vocab_size) ?? count(server.vocab_size),
    contextLength: smallest(
      count(served.max_model_len) ?? count(server.context_length),
      afterOne(server.max_req_input_len),
    ),
  };
}

/** CPU seconds in the engines of a server; NaN when it does not say. @throws as readServerFacts() */
export async function readEngineCpuSeconds(client: HttpClient): Promise<number> {
  const { scheduler } = await readFirst(client, ['/server_info']);
  return Number((scheduler as { engine_cpu_seconds?: unknown } | undefined)?.engine_cpu_seconds ?? NaN);
}

async function readFirst(client: HttpClient, paths: string[]): Promise<Record<string, unknown>> {
  for (const path of paths) {
    try {
      const body = await client.json('GET', path);
      return typeof body === 'object' && body !== null ? (body as Record<string, unknown>) : {};
    } catch (error) {
      if (!(error instanceof HttpStatusError && error.httpStatus === 404)) throw error;
    }
  }
  return {};
}

function text(value: unknown): string | null {
  return typeof value === 'string' && value !== '' ? value : null;
}

function count(value: unknown): number | null {
  return typeof value === 'number' && Number.isInteger(value) && value > 0 ? value : null;
}

/** A request has one output token at least, so its context is the longest input and one. */
function afterOne(longestInput: unknown): number | null {
  const length = count(longestInput);
  return length === null ? null : length + 1;
}

function smallest(a: number | null, b: number | null): number | null {
  return a === null || b === null ? (a ?? b) : Math.min(a, b);
}
