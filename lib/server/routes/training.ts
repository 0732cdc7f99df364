import type { FastifyInstance } from 'fastify';

import type { ServerContext } from '../context.js';
import { badValue } from '../errors.js';
import { bodyFields, string } from '../fields.js';

const PAUSE_MODES = ['in_place', 'abort'];

/** What trainers call between rollouts: POST /pause_generation and /continue_generation. */
export function trainingRoutes(app: FastifyInstance, { frontend, log }: ServerContext): void {
  app.post('/pause_generation', async (request) => {
    const workers = frontend.readyWorkers;
    const mode = bodyFields(request.body ?? {}).get('mode', string, 'in_place');
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
}
