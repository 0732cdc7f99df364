import {
  closeSync,
  fdatasync,
  fstatSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { promisify } from 'node:util';
import { makeSegments, SEGMENT_BYTES, type Segment, type SegmentedFile } from './segments.js';

/** Bytes between two syncs to the disk: so much is lost with the machine, and little is left to sync in the end. */
export const SYNC_BYTES = 16 * 2 ** 20;

const MAGIC = Buffer.from('detinfer-ranges1');
/** Magic, id of the boot, size of the file, size of a segment. */
const HEADER_BYTES = 48;
/** Two u32: written, synced. */
const ENTRY_BYTES = 8;

const syncData = promisify(fdatasync);

/**
 * A large file that is downloaded, and beside it a table of how much of each segment it holds. The data file is
 * sparse, so its length says nothing; the table alone does. A write and its entry are two calls in one turn, the data
 * first: killed at any moment, the process loses what it had not written yet. After a crash of the machine, which the
 * id of the boot tells, only what had been synced counts.
 *
 * Both names differ from the BLOB.incomplete of Python's huggingface_hub, which takes the length of that file for
 * what it holds.
 */
export class PartialFile implements SegmentedFile {
  readonly path: string;
  readonly segments: Segment[];
  readonly #tablePath: string;
  readonly #data: number;
  readonly #table: number;
  /** Bytes of each segment that are on the disk, whatever happens to the machine. */
  readonly #synced: number[];
  /** Bytes that have been written since the last sync began. */
  #unsynced: number;
  #syncing: Promise<void> | null = null;
  /** Why a sync failed: the kernel tells it once, and another sync would succeed. */
  #failure: unknown = null;
  #isOpen = true;

  /** Opens what an earlier process left of the file `blobPath` with `size` bytes, or begins anew. */
  constructor(
    private readonly blobPath: string,
    private readonly size: number,
  ) {
    this.path = `${blobPath}.detinfer.incomplete`;
    this.#tablePath = `${blobPath}.detinfer.ranges`;
    this.segments = makeSegments(size);
    this.#synced = this.segments.map(() => 0);
    const isResumed = this.#readTable();
    if (!isResumed) this.#remove();
    this.#unsynced = this.segments.reduce((sum, { index, written }) => sum + written - this.#synced[index]!, 0);
    // The table is renewed as a whole, with the id of this boot.
    writeFileSync(`${this.#tablePath}.new`, this.#encode());
    renameSync(`${this.#tablePath}.new`, this.#tablePath);
    this.#table = openSync(this.#tablePath, 'r+');
    this.#data = openSync(this.path, isResumed ? 'r+' : 'w+');
  }

  /** Removes what an earlier process left, if anything. */
  static removeLeftovers(blobPath: string): void {
    for (const end of ['incomplete', 'ranges', 'ranges.new']) rmSync(`${blobPath}.detinfer.${end}`, { force: true });
  }

  /** Space that an earlier process has taken for a file. */
  static bytesOnDisk(blobPath: string): number {
    return (statSync(`${blobPath}.detinfer.incomplete`, { throwIfNoEntry: false })?.blocks ?? 0) * 512;
  }

  /** Bytes that the file holds. */
  get written(): number {
    return this.segments.reduce((sum, { written }) => sum + written, 0);
  }

  /** Bytes from the start of the file to its first hole. */
  get front(): number {
    const open = this.segments.find(({ written, length }) => written < length);
    return open === undefined ? this.size : open.start + open.written;
  }

  /** Adds the next bytes of a segment. Throws the file system's error, such as ENOSPC. */
  append(segment: Segment, bytes: Uint8Array): void {
    if (bytes.length > segment.length - segment.written) throw new Error('more bytes than the segment has');
    for (let done = 0; done < bytes.length;) {
      done += writeSync(this.#data, bytes, done, bytes.length - done, segment.start + segment.written + done);
    }
    segment.written += bytes.length;
    this.#record(segment);
    this.#unsynced += bytes.length;
    if (this.#unsynced >= SYNC_BYTES) this.#startSync(SYNC_BYTES);
  }

  /** Forgets what a segment holds. */
  restart(segment: Segment): void {
    segment.written = 0;
    this.#synced[segment.index] = 0;
    this.#record(segment);
  }

  /** Resolves when all that was written is on the disk. Throws the file system's error. */
  async flush(): Promise<void> {
    await this.#syncing;
    this.#startSync(1);
    await this.#syncing;
    if (this.#failure !== null) throw this.#failure;
  }

  /** Makes the complete file the blob; it is on the disk before it has its name. */
  async commit(): Promise<void> {
    await this.flush();
    renameSync(this.path, this.blobPath);
    await this.close();
    PartialFile.removeLeftovers(this.blobPath);
  }

  /** Closes the files, to be resumed later; safe to call twice. */
  async close(): Promise<void> {
    await this.#syncing;
    if (!this.#isOpen) return;
    this.#isOpen = false;
    closeSync(this.#data);
    closeSync(this.#table);
  }

  /** Closes and removes the files. */
  async discard(): Promise<void> {
    await this.close();
    this.#remove();
  }

  #remove(): void {
    PartialFile.removeLeftovers(this.blobPath);
  }

  #record({ index, written }: Segment): void {
    const bytes = entry(written, this.#synced[index]!);
    writeSync(this.#table, bytes, 0, ENTRY_BYTES, HEADER_BYTES + index * ENTRY_BYTES);
  }

  /** Syncs as long as so many bytes are not; one sync at a time. */
  #startSync(bytes: number): void {
    this.#syncing ??= this.#sync(bytes)
      .catch((error: unknown) => (this.#failure = error))
      .finally(() => (this.#syncing = null))
      .then(() => {});
  }

  async #sync(bytes: number): Promise<void> {
    while (this.#unsynced >= bytes) {
      this.#unsynced = 0;
      const written = this.segments.map((segment) => segment.written);
      await syncData(this.#data);
      for (const segment of this.segments) {
        // What began anew meanwhile is not what was synced.
        const synced = written[segment.index]!;
        if (synced === this.#synced[segment.index] || segment.written < synced) continue;
        this.#synced[segment.index] = synced;
        this.#record(segment);
      }
    }
  }

  /** Takes over the table of an earlier process; false if there is none that can be trusted. */
  #readTable(): boolean {
    let table: Buffer;
    let dataBytes: number;
    try {
      table = readFileSync(this.#tablePath);
      const data = openSync(this.path, 'r');
      dataBytes = fstatSync(data).size;
      closeSync(data);
    } catch {
      return false;
    }
    const isSameBoot = table.subarray(0, HEADER_BYTES).equals(this.#header());
    const own = Buffer.concat([table.subarray(0, 16), bootId(), table.subarray(32, HEADER_BYTES)]);
    if (table.length !== this.#encode().length || !own.equals(this.#header())) return false;
    const held = this.segments.map(({ index }) => {
      const at = HEADER_BYTES + index * ENTRY_BYTES;
      return { written: table.readUInt32LE(at), synced: table.readUInt32LE(at + 4) };
    });
    const isPossible = this.segments.every(({ index, start, length }) => {
      const { written, synced } = held[index]!;
      return synced <= written && written <= length && (written === 0 || start + written <= dataBytes);
    });
    if (!isPossible) return false;
    for (const segment of this.segments) {
      const { written, synced } = held[segment.index]!;
      segment.written = isSameBoot ? written : synced;
      this.#synced[segment.index] = synced;
    }
    return true;
  }

  #encode(): Buffer {
    const entries = this.segments.map(({ index, written }) => entry(written, this.#synced[index]!));
    return Buffer.concat([this.#header(), ...entries]);
  }

  #header(): Buffer {
    const sizes = Buffer.alloc(16);
    sizes.writeBigUInt64LE(BigInt(this.size), 0);
    sizes.writeBigUInt64LE(BigInt(SEGMENT_BYTES), 8);
    return Buffer.concat([MAGIC, bootId(), sizes]);
  }
}

function entry(written: number, synced: number): Buffer {
  const bytes = Buffer.allocUnsafe(ENTRY_BYTES);
  bytes.writeUInt32LE(written, 0);
  bytes.writeUInt32LE(synced, 4);
  return bytes;
}

/** 16 bytes that change with every start of the machine. */
function bootId(): Buffer {
  return Buffer.from(readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').replace(/[^0-9a-f]/g, ''), 'hex');
}
