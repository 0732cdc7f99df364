import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { Template } from '@huggingface/jinja';

import { DetinferError } from '../protocol/errors.js';

/** Entries of tokenizer_config.json that templates may use as variables. */
const TOKEN_VARIABLES = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'];

interface NamedTemplate {
  name: string;
  template: string;
}

/** What a template sees. */
export interface TemplateInput {
  messages: object[];
  /** null: no tools. */
  tools: object[] | null;
  add_generation_prompt: boolean;
  [variable: string]: unknown;
}

/** A model's Jinja template, which turns the messages of a chat into a prompt. */
export class ChatTemplate {
  private readonly standard: Template;
  /** Another one for chats with tools, where the model has one. */
  private readonly withTools: Template;

  /**
   * @param variables the model's special tokens, by name.
   * @throws Error for text that is no Jinja template.
   */
  constructor(
    template: string,
    private readonly variables: Readonly<Record<string, string>>,
    templateWithTools: string = template,
  ) {
    this.standard = new Template(template);
    this.withTools = templateWithTools === template ? this.standard : new Template(templateWithTools);
  }

  /**
   * The template of a model folder (chat_template.jinja, else that of tokenizer_config.json), or of a file.
   * @param file null: the model's own.
   * @returns null when the model has none.
   * @throws DetinferError INVALID_FLAG for a file that can't be used, INVALID_MODEL for a template that can't.
   */
  static async load(folder: string, file: string | null): Promise<ChatTemplate | null> {
    const config = await readConfig(join(folder, 'tokenizer_config.json'));
    const variables = Object.fromEntries(
      TOKEN_VARIABLES.map((name) => [name, contentOf(config[name])]).filter(([, text]) => text !== null),
    ) as Record<string, string>;
    if (file !== null) return fromFile(file, variables);
    const path = join(folder, 'chat_template.jinja');
    const text = await readIfThere(path);
    try {
      if (text !== null) return new ChatTemplate(text, variables);
      return fromConfig(config['chat_template'], variables);
    } catch (error) {
      const where = text === null ? 'The chat_template of tokenizer_config.json' : path;
      throw new DetinferError('INVALID_MODEL', `${where} can't be used: ${(error as Error).message}`, { cause: error });
    }
  }

  /** @throws DetinferError INVALID_REQUEST for messages that the template refuses. */
  render(input: TemplateInput): string {
    const template = input.tools === null ? this.standard : this.withTools;
    try {
      return template.render({ ...this.variables, ...input });
    } catch (error) {
      const message = `The chat template refuses the request: ${(error as Error).message}`;
      throw new DetinferError('INVALID_REQUEST', message, { cause: error });
    }
  }
}

async function fromFile(file: string, variables: Record<string, string>): Promise<ChatTemplate> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    throw new DetinferError(
      'INVALID_FLAG',
      `--chat-template ${file}: there is no such file. Pass the path of a Jinja template; SGLang's built-in names ` +
        'are not supported.',
      { cause: error },
    );
  }
  try {
    return new ChatTemplate(text, variables);
  } catch (error) {
    const message = `--chat-template ${file} is no Jinja template: ${(error as Error).message}`;
    throw new DetinferError('INVALID_FLAG', message, { cause: error });
  }
}

/** One template, or a list of them by name. */
function fromConfig(value: unknown, variables: Record<string, string>): ChatTemplate | null {
  if (typeof value === 'string') return new ChatTemplate(value, variables);
  if (!Array.isArray(value)) return null;
  const named = new Map((value as NamedTemplate[]).map(({ name, template }) => [name, template]));
  const standard = named.get('default');
  return standard === undefined ? null : new ChatTemplate(standard, variables, named.get('tool_use'));
}

function contentOf(value: unknown): string | null {
  if (typeof value === 'string') return value;
  const content = (value as { content?: unknown } | null | undefined)?.content;
  return typeof content === 'string' ? content : null;
}

async function readIfThere(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    return null;
  }
}

/** The tokenizer has reported a damaged file before. */
async function readConfig(path: string): Promise<Record<string, unknown>> {
  const text = await readIfThere(path);
  return text === null ? {} : (JSON.parse(text) as Record<string, unknown>);
}
