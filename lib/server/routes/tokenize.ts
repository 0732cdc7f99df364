import type { FastifyInstance } from 'fastify';

import type { Tokenizer } from '../../tokenizer/tokenizer.js';
import type { ServerContext } from '../context.js';
import { badValue } from '../errors.js';
import { bodyFields, boolean, list, oneOrList, string, tokenIds } from '../fields.js';

/** POST /tokenize and /detokenize, also below /v1; one text or a list of them. */
export function tokenizeRoutes(app: FastifyInstance, { frontend }: ServerContext): void {
  const tokenizer = (): Tokenizer => {
    if (frontend.tokenizer) return frontend.tokenizer;
    throw badValue('This server runs without a tokenizer (--skip-tokenizer-init).');
  };

  for (const url of ['/tokenize', '/v1/tokenize']) {
    app.post(url, (request) => {
      const { contextLength } = frontend.readyWorkers.info;
      const fields = bodyFields(request.body);
      const name = fields.has('prompt') ? 'prompt' : 'text';
      const texts = fields.get<string[] | null>(name, oneOrList(string), null);
      if (texts === null) throw badValue('Give prompt (or text): a string or a list of strings.');
      const addSpecialTokens = fields.get('add_special_tokens', boolean, true);
      const tokens = texts.map((text) => tokenizer().encode(text, addSpecialTokens));
      const counts = tokens.map((ids) => ids.length);
      const isList = Array.isArray(fields.raw(name));
      return {
        tokens: isList ? tokens : tokens[0],
        count: isList ? counts : counts[0],
        max_model_len: contextLength,
      };
    });
  }

  for (const url of ['/detokenize', '/v1/detokenize']) {
    app.post(url, (request) => {
      const ids = tokenIds(frontend.readyWorkers.info.vocabSize);
      const fields = bodyFields(request.body);
      const value = fields.raw('tokens');
      if (value === undefined) throw badValue('Give tokens: a list of token ids, or a list of such lists.');
      const isList = Array.isArray(value) && value.some(Array.isArray);
      const lists = isList ? list(ids)(value, 'tokens') : [ids(value, 'tokens')];
      const skipSpecialTokens = fields.get('skip_special_tokens', boolean, true);
      const texts = lists.map((tokens) => tokenizer().decode(tokens, skipSpecialTokens));
      const text = isList ? texts : texts[0];
      // SGLang answers with text, vLLM with prompt.
      return { text, prompt: text };
    });
  }
}
