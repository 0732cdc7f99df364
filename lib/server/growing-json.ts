/**
 * Text that grows by pieces and is sent again with each. V8 keeps a sum of strings as a tree and puts it together from all
 * its pieces every time it is written as a part of something else; once a character of it has been read, it is one piece
 * of memory, which the next sum begins with.
 */
class GrowingText {
  private text = '';

  push(piece: string): void {
    this.text += piece;
  }

  get isEmpty(): boolean {
    return this.text === '';
  }

  toString(): string {
    this.text.charCodeAt(0);
    return this.text;
  }
}

/** A JSON list that grows. */
export class JsonList {
  private readonly elements = new GrowingText();

  push(json: string): void {
    this.elements.push(this.elements.isEmpty ? json : `,${json}`);
  }

  toString(): string {
    return `[${this.elements}]`;
  }
}

/** A JSON string that grows: what is there already is not escaped anew. */
export class JsonString {
  private readonly escaped = new GrowingText();

  /** @param text that does not end inside a character. */
  push(text: string): void {
    this.escaped.push(JSON.stringify(text).slice(1, -1));
  }

  toString(): string {
    return `"${this.escaped}"`;
  }
}
