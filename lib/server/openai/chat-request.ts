import { DetinferError } from '../../protocol/errors.js';
import type { ChatTemplate } from '../../tokenizer/chat-template.js';
import { badValue } from '../errors.js';
import { bodyFields, boolean, type Fields, integer, isObject, type JsonObject } from '../fields.js';
import { countSequences } from '../validate.js';
import { readMessages } from './messages.js';
import {
  type OpenAIRequest,
  readAnswerOptions,
  readSampling,
  refuseUnsupported,
  type ServerFacts,
  wrongType,
} from './request.js';

/**
 * Checks a body of /v1/chat/completions and writes its prompt by the chat template.
 * @throws DetinferError INVALID_REQUEST (SchemaError for a wrong type) or UNSUPPORTED.
 */
export function readChatRequest(body: unknown, facts: ServerFacts, template: ChatTemplate | null): OpenAIRequest {
  const fields = bodyFields(body);
  refuseUnsupported(fields);
  refuseModalities(fields);
  const options = readAnswerOptions(fields, 'chatcmpl', facts);
  const prompt = renderPrompt(fields, template);
  const sampling = readSampling(fields, maxTokens(fields, facts), facts);
  const top = readTopLogprobs(fields, facts);
  const logprobs = top === null ? null : { start: -1, top, tokenIds: [], withText: false, keepEntries: true };
  countSequences([sampling]);
  return {
    generate: {
      // The template writes the special tokens itself.
      prompts: [
        { rids: [options.id], prompt, addSpecialTokens: false, sampling, logprobs, withReceipt: options.withReceipt },
      ],
      isList: true,
      stream: options.stream,
    },
    answer: { ...options, n: sampling.n, topLogprobs: top, echo: null },
  };
}

/** Without a limit an answer may fill the context. */
function maxTokens(fields: Fields, { contextLength }: ServerFacts): { name: string; value: unknown } {
  const newer = fields.raw('max_completion_tokens');
  const older = fields.raw('max_tokens');
  if (newer !== undefined && older !== undefined && newer !== older) {
    throw badValue('max_completion_tokens and max_tokens are given and differ; give one of them.');
  }
  if (newer !== undefined) return { name: 'max_completion_tokens', value: newer };
  return { name: 'max_tokens', value: older ?? contextLength };
}

function readTopLogprobs(fields: Fields, { vocabSize }: ServerFacts): number | null {
  const wanted = fields.get('logprobs', boolean, false);
  const top = fields.get('top_logprobs', integer({ min: 0, max: vocabSize }), 0);
  if (!wanted && top > 0) throw badValue('top_logprobs needs logprobs: true.');
  return wanted ? top : null;
}

function refuseModalities(fields: Fields): void {
  const modalities = fields.raw('modalities');
  if (modalities === undefined || (Array.isArray(modalities) && modalities.every((name) => name === 'text'))) return;
  throw new DetinferError('UNSUPPORTED', 'modalities other than text are not supported by this version.');
}

function renderPrompt(fields: Fields, template: ChatTemplate | null): string {
  const messages = readMessages(fields);
  const tools = readTools(fields);
  const continues = fields.get('continue_final_message', boolean, false);
  // The last answer is a beginning that the model goes on from, so it stands after the prompt and not in it.
  const beginning = continues ? messages.pop()! : null;
  if (beginning !== null && beginning.role !== 'assistant') {
    throw badValue('continue_final_message needs a last message with the role assistant.');
  }
  if (template === null) {
    throw badValue('The model has no chat template. Start the server with --chat-template, or use /v1/completions.');
  }
  const prompt = template.render({
    ...templateArguments(fields),
    messages,
    tools,
    // It stands before the beginning, too: without it the model would go on in the turn before.
    add_generation_prompt: fields.get('add_generation_prompt', boolean, true) || beginning !== null,
  });
  return prompt + (beginning?.content ?? '');
}

/** Tools are the template's to describe; what the model makes of them is text. */
function readTools(fields: Fields): JsonObject[] | null {
  const tools = fields.raw('tools') ?? [];
  if (!Array.isArray(tools)) throw wrongType('tools', 'a list', tools);
  tools.forEach((tool, i) => {
    if (!isObject(tool) || tool['type'] !== 'function' || !isObject(tool['function'])) {
      throw wrongType(`tools[${i}]`, 'an object {type: "function", function: {…}}', tool);
    }
  });
  const choice = fields.raw('tool_choice') ?? 'auto';
  if (choice === 'none') return null;
  if (choice !== 'auto') {
    throw new DetinferError(
      'UNSUPPORTED',
      'tool_choice must be auto or none: this version passes tools to the chat template and does not enforce calls.',
    );
  }
  return tools.length === 0 ? null : tools;
}

/** Variables for the template besides its usual ones. */
function templateArguments(fields: Fields): JsonObject {
  const extra = fields.raw('chat_template_kwargs') ?? {};
  if (!isObject(extra)) throw wrongType('chat_template_kwargs', 'an object', extra);
  return fields.has('reasoning_effort') ? { reasoning_effort: fields.raw('reasoning_effort'), ...extra } : extra;
}
