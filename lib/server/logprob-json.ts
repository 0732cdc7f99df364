import type { TokenLogprob } from '../protocol/messages.js';
import { JsonList } from './growing-json.js';
import type { LogprobOptions } from './validate.js';

/** Text of one token by itself. */
export type TokenText = (id: number) => string;

/**
 * The logprobs of one sequence as fields of meta_info, written as they come. A logprob is an f32 widened to a double,
 * and JSON.stringify writes the shortest text that reads back as the same double: no bit is lost.
 */
export class LogprobJson {
  private readonly input = new Columns();
  private readonly output = new Columns();

  /** @param tokenText null: no texts in the entries. */
  constructor(
    private readonly options: LogprobOptions,
    private readonly tokenText: TokenText | null,
  ) {}

  addPrompt(entries: TokenLogprob[]): void {
    for (const entry of entries) this.add(this.input, entry);
  }

  addOutput(entry: TokenLogprob): void {
    this.add(this.output, entry);
  }

  /** Fields of a JSON object, each with a comma before it. */
  get fields(): string {
    const { input, output, options } = this;
    let json = `,"input_token_logprobs":${input.token},"output_token_logprobs":${output.token}`;
    if (options.top > 0) json += `,"input_top_logprobs":${input.top},"output_top_logprobs":${output.top}`;
    if (options.tokenIds.length > 0) {
      json += `,"input_token_ids_logprobs":${input.ids},"output_token_ids_logprobs":${output.ids}`;
    }
    return json;
  }

  private add(columns: Columns, entry: TokenLogprob): void {
    columns.token.push(this.entry(entry.logprob, entry.tokenId));
    if (this.options.top > 0) columns.top.push(this.entries(entry.top));
    if (this.options.tokenIds.length > 0) columns.ids.push(this.entries(entry.ids));
  }

  private entries(pairs: [logprob: number, tokenId: number][] | null | undefined): string {
    if (!pairs) return 'null';
    return `[${pairs.map(([logprob, tokenId]) => this.entry(logprob, tokenId)).join(',')}]`;
  }

  private entry(logprob: number | null, tokenId: number): string {
    const text = this.tokenText === null ? 'null' : JSON.stringify(this.tokenText(tokenId));
    return `[${JSON.stringify(logprob)},${tokenId},${text}]`;
  }
}

/** One element per position. */
class Columns {
  readonly token = new JsonList();
  readonly top = new JsonList();
  readonly ids = new JsonList();
}
