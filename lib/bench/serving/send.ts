import { request, type Dispatcher } from 'undici';
import type { PlannedRequest, ServingOptions, Timing } from './types.js';
import { TokenStream } from './token-stream.js';

/** Sends one request, streamed, and measures it. A failure is a result, too: it never throws. */
export async function sendMeasured(
  dispatcher: Dispatcher,
  url: string,
  { inputIds, outputLength }: PlannedRequest,
  options: Pick<ServingOptions, 'ignoreEos' | 'temperature'>,
): Promise<Timing> {
  const body = JSON.stringify({
    input_ids: inputIds,
    sampling_params: { temperature: options.temperature, max_new_tokens: outputLength, ignore_eos: options.ignoreEos },
    stream: true,
  });
  const timing: Timing = {
    error: null,
    inputTokens: inputIds.length,
    outputTokens: 0,
    firstTokenMs: 0,
    totalMs: 0,
    interTokenMs: [],
  };
  const start = performance.now();
  try {
    await receive(dispatcher, `${url}/generate`, body, start, timing);
    if (options.ignoreEos && timing.outputTokens !== outputLength) {
      timing.error = `${timing.outputTokens} tokens instead of ${outputLength}`;
    }
  } catch (error) {
    timing.error = error instanceof Error ? error.message : String(error);
  }
  timing.totalMs = performance.now() - start;
  return timing;
}

async function receive(
  dispatcher: Dispatcher,
  url: string,
  body: string,
  start: number,
  timing: Timing,
): Promise<void> {
  const headers = { 'content-type': 'application/json' };
  const response = await request(url, { method: 'POST', dispatcher, headers, body });
  if (response.statusCode !== 200) {
    throw new Error(`status ${response.statusCode}: ${(await response.body.text()).slice(0, 200)}`);
  }
  const stream = new TokenStream();
  let previous = start;
  await new Promise<void>((resolve, reject) => {
    response.body.on('data', (chunk: Buffer) => {
      const count = stream.push(chunk) - timing.outputTokens;
      if (count <= 0) return;
      const now = performance.now();
      recordTokens(timing, count, now - previous, now - start);
      previous = now;
    });
    response.body.on('end', resolve);
    response.body.on('error', reject);
  });
  timing.outputTokens = stream.finish().completionTokens;
}

/** Tokens that arrive together share the time since the one before them; the very first has its own measure. */
function recordTokens(timing: Timing, count: number, sincePreviousMs: number, sinceStartMs: number): void {
  const isFirst = timing.outputTokens === 0;
  if (isFirst) timing.firstTokenMs = sinceStartMs;
  const share = isFirst ? 0 : sincePreviousMs / count;
  for (let i = isFirst ? 1 : 0; i < count; i++) timing.interTokenMs.push(share);
  timing.outputTokens += count;
}
