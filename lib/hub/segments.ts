/** A consecutive part of a file; it is fetched from its start on. */
export interface Segment {
  readonly index: number;
  readonly start: number;
  readonly length: number;
  /** Bytes of it that have been taken in. */
  written: number;
}

/** Where a transfer puts the bytes of a file. */
export interface SegmentedFile {
  readonly segments: Segment[];
  /** Adds the next bytes of a segment. */
  append(segment: Segment, bytes: Uint8Array): void;
  /** Forgets what a segment holds. */
  restart(segment: Segment): void;
}

export const SEGMENT_BYTES = 16 * 2 ** 20;

export function makeSegments(size: number): Segment[] {
  return Array.from({ length: Math.ceil(size / SEGMENT_BYTES) }, (_, index) => {
    const start = index * SEGMENT_BYTES;
    return { index, start, length: Math.min(SEGMENT_BYTES, size - start), written: 0 };
  });
}
