/**
 * A JSON list that grows. Appending costs as much as the new element, however long the list is. Its text is one piece of
 * memory that the next begins with; one that grew by += would be put together from all elements each time.
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
