import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

import { DetinferError } from '../../protocol/errors.js';
import type { ServerContext } from '../context.js';
import { badValue } from '../errors.js';
import { bodyFields, boolean, list, string } from '../fields.js';
import type { Weights } from '../frontend.js';
import { MEMORY_TAGS, type MemoryTag } from '../../worker/replicas.js';

interface WeightUpdate {
  success: boolean;
  message: string;
  num_paused_requests: number;
}

const PAUSE_MODES = ['abort', 'in_place'];

/** An empty list and none both mean all. @throws DetinferError INVALID_REQUEST for a tag that there is not. */
function memoryTags(body: unknown): readonly MemoryTag[] {
  const tags = bodyFields(body ?? {}).get('tags', list(string), []);
  const unknown = tags.find((tag) => !(MEMORY_TAGS as readonly string[]).includes(tag));
  if (unknown !== undefined) throw badValue(`tags may hold ${MEMORY_TAGS.join(', ')}, not ${JSON.stringify(unknown)}.`);
  return tags.length === 0 ? MEMORY_TAGS : (tags as MemoryTag[]);
}

/**
 * What trainers call between rollouts: POST /pause_generation, /continue_generation, /update_weights_from_disk,
 * /release_memory_occupation and /resume_memory_occupation.
 */
export function trainingRoutes(app: FastifyInstance, { frontend, log }: ServerContext): void {
  app.post('/pause_generation', async (request) => {
    const workers = frontend.readyWorkers;
    const mode = bodyFields(request.body ?? {}).get('mode', string, 'abort');
    if (!PAUSE_MODES.includes(mode)) {
      throw badValue(`mode must be in_place (requests wait) or abort (they end); it is ${JSON.stringify(mode)}.`);
    }
    if (mode === 'abort') frontend.abort(null, 'aborted by /pause_generation');
    await workers.setPaused(true);
    log('info', `generation is paused (${mode})`);
    return { status: 'ok', message: 'Generation paused successfully.' };
  });

  app.post('/continue_generation', async () => {
    await frontend.readyWorkers.setPaused(false);
    log('info', 'generation goes on');
    return { status: 'ok', message: 'Generation continued successfully.' };
  });

  const memoryRoute = (url: string, run: (tags: readonly MemoryTag[]) => Promise<void>): void => {
    app.route({
      method: ['GET', 'POST'],
      url,
      async handler(request: FastifyRequest, reply: FastifyReply) {
        const tags = memoryTags(request.body);
        await run(tags);
        log('info', `${url.slice(1)}: ${tags.join(', ')}`);
        return reply.type('application/json; charset=utf-8').send('null');
      },
    });
  };
  memoryRoute('/release_memory_occupation', (tags) => frontend.readyWorkers.releaseMemory(tags));
  memoryRoute('/resume_memory_occupation', (tags) => frontend.readyWorkers.resumeMemory(tags));

  app.post('/update_weights_from_disk', async (request, reply) => {
    const fields = bodyFields(request.body);
    const modelPath = fields.get('model_path', string, '');
    if (modelPath === '') throw badValue('Give model_path: the folder of the new weights.');
    // The keys and values of old weights are of no use to new ones: false can't be heeded, and does no harm.
    fields.get('flush_cache', boolean, true);
    const abortsAll = fields.get('abort_all_requests', boolean, false);
    const abortMessage = abortsAll ? 'aborted by /update_weights_from_disk' : null;
    const version = fields.get('weight_version', string, frontend.weights.version);
    const update = await updateWeights({ modelPath, version }, abortMessage);
    log(update.success ? 'info' : 'error', `update_weights_from_disk: ${update.message}`);
    return reply.code(update.success ? 200 : 400).send(update);
  });

  async function updateWeights(weights: Weights, abortMessage: string | null): Promise<WeightUpdate> {
    // Whether there are workers at all is another question, with a 503 for an answer.
    const updating = frontend.updateWeights(weights, abortMessage);
    try {
      const waited = await updating;
      const message = `the weights of ${weights.modelPath} are served as version ${weights.version}`;
      return { success: true, message, num_paused_requests: waited };
    } catch (error) {
      if (!(error instanceof DetinferError)) throw error;
      return { success: false, message: `${error.message}; the weights are those of before`, num_paused_requests: 0 };
    }
  }
}
