import { makeSegments, type Segment, type SegmentedFile } from './segments.js';

/** A small file that is downloaded into memory; an earlier process leaves nothing of it. */
export class MemoryFile implements SegmentedFile {
  readonly segments: Segment[];
  readonly bytes: Buffer;

  constructor(size: number) {
    this.segments = makeSegments(size);
    this.bytes = Buffer.alloc(size);
  }

  append(segment: Segment, bytes: Uint8Array): void {
    this.bytes.set(bytes, segment.start + segment.written);
    segment.written += bytes.length;
  }

  restart(segment: Segment): void {
    segment.written = 0;
  }
}
