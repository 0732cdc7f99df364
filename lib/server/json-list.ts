/** A JSON list that grows: appending costs as much as the new element, however long the list is. */
export class JsonList {
  private joined = '';

  push(json: string): void {
    this.joined += this.joined === '' ? json : `,${json}`;
  }

  toString(): string {
    return `[${this.joined}]`;
  }
}
