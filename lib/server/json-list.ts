/**
 * A JSON list that grows. Appending costs as much as the new element, however long the list is; its text is one piece of
 * memory that the next text begins with, where a string that grew by += would be put together from all elements anew.
 */
export class JsonList {
  private parts: string[] = [];

  push(json: string): void {
    this.parts.push(json);
  }

  toString(): string {
    if (this.parts.length > 1) this.parts = [this.parts.join(',')];
    return `[${this.parts[0] ?? ''}]`;
  }
}
