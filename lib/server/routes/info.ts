import type { FastifyInstance } from 'fastify';

import type { EngineInfo } from '../../protocol/messages.js';
import type { ServerContext } from '../context.js';

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function snakeCaseKeys(object: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(object).map(([name, value]) => [snakeCase(name), value]));
}

/** What the loaded engine says about itself under the names that SGLang's clients read. */
function engineFacts(info: EngineInfo): Record<string, unknown> {
  return {
    ...snakeCaseKeys(info),
    max_total_num_tokens: info.maxTotalTokens,
    max_req_input_len: Math.min(info.contextLength, info.maxTotalTokens) - 1,
  };
}

/** GET /server_info, /model_info and their older names. */
export function infoRoutes(app: FastifyInstance, { args, frontend, version }: ServerContext): void {
  // An argument that was left to the engine shows what the engine made of it.
  const shownArgs = { ...args, apiKey: args.apiKey === null ? null : '***' };
  const givenArgs = Object.fromEntries(Object.entries(snakeCaseKeys(shownArgs)).filter(([, value]) => value !== null));
  const servedWeights = () => ({ model_path: frontend.weights.modelPath, weight_version: frontend.weights.version });
  for (const url of ['/server_info', '/get_server_info']) {
    app.get(url, async () => {
      const workers = frontend.readyWorkers;
      const { scheduler, replicas, ...counts } = await workers.status();
      return {
        ...engineFacts(workers.info),
        ...givenArgs,
        ...servedWeights(),
        ...snakeCaseKeys(counts),
        scheduler: snakeCaseKeys(scheduler),
        internal_states: replicas.map(snakeCaseKeys),
        version,
      };
    });
  }
  for (const url of ['/model_info', '/get_model_info']) {
    app.get(url, () => {
      const { modelType, architectures, vocabSize, contextLength } = frontend.readyWorkers.info;
      return {
        ...servedWeights(),
        tokenizer_path: args.tokenizerPath,
        is_generation: true,
        preferred_sampling_params: null,
        model_type: modelType,
        architectures,
        vocab_size: vocabSize,
        context_length: contextLength,
      };
    });
  }
}
