/**
 * A model hub on this machine that behaves like the real one: its API and small files on one origin, large files behind
 * signed links on another, with ranges, etags, the X-… headers and the error codes. It can be made slow and faulty, and
 * notes what it was asked and how many bytes it sent.
 */
import { createHash, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export interface HubRepo {
  files: Record<string, Uint8Array | string>;
  /** Branches and tags that name the commit, besides main. */
  refs?: string[];
  /** gated: the listing is public, files need `token`; private: without it, the repository seems not to exist. */
  access?: 'public' | 'gated' | 'private';
}

/** Something that goes wrong `times` times (once by default) with requests to which it applies. */
export interface Fault {
  /** Where: the API, HEAD or GET of a file at the hub, GET of a link. */
  at: 'api' | 'head' | 'hub' | 'cdn';
  times?: number;
  /** An answer with this status … */
  status?: number;
  headers?: Record<string, string>;
  /** … and this body instead of an error's … */
  text?: string;
  /** … or a connection that breaks after so many bytes of the body … */
  dropAfter?: number;
  /** … or bytes that are not those of the file … */
  corrupt?: boolean;
  /** … or a whole file where a range was asked for. */
  ignoreRange?: boolean;
}

export interface HubRequest {
  at: Fault['at'];
  method: string;
  path: string;
  range: string | null;
  authorization: string | null;
}

/** Larger files are behind links, as those in Git LFS are. */
const LFS_BYTES = 100_000;
const LISTED_AT_ONCE = 4;
const SLICE_BYTES = 32 * 1024;

interface StoredFile {
  bytes: Buffer;
  etag: string;
  isLfs: boolean;
  /** What the hub says about it. */
  size: number;
}

interface StoredRepo {
  commit: string;
  refs: Set<string>;
  access: NonNullable<HubRepo['access']>;
  files: Map<string, StoredFile>;
}

export class LocalHub {
  readonly requests: HubRequest[] = [];
  readonly faults: Fault[] = [];
  /** The token that opens gated and private repositories. */
  readonly token = 'secret-token';
  /** Bytes of large files that were handed to the network. */
  sentBytes = 0;
  /** Most bytes per second of all links together. */
  bytesPerSecond = Infinity;
  /** Links send no more once so many bytes are sent, until this grows. */
  holdAfter = Infinity;
  /** Requests that a link is good for. */
  linkUses = Infinity;
  readonly #repos = new Map<string, StoredRepo>();
  readonly #links = new Map<string, { file: StoredFile; uses: number }>();
  readonly #renamed = new Map<string, string>();
  #nextSliceAt = 0;

  private constructor(
    private readonly hub: Server,
    private readonly cdn: Server,
  ) {}

  static async start(): Promise<LocalHub> {
    const servers = [createServer(), createServer()] as const;
    for (const server of servers) await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const hub = new LocalHub(...servers);
    hub.hub.on(
      'request',
      (request, response) => void hub.#serve(request, response, () => hub.#onHub(request, response)),
    );
    hub.cdn.on(
      'request',
      (request, response) => void hub.#serve(request, response, () => hub.#onCdn(request, response)),
    );
    return hub;
  }

  /** For HF_ENDPOINT. */
  get endpoint(): string {
    return `http://127.0.0.1:${(this.hub.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    for (const server of [this.hub, this.cdn]) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  /** Adds a repository, or a new commit to it, and returns the commit. */
  publish(name: string, { files, refs = [], access = 'public' }: HubRepo): string {
    const stored = new Map(Object.entries(files).map(([path, content]) => [path, storedFile(Buffer.from(content))]));
    const commit = createHash('sha1').update(name).update(randomBytes(8)).digest('hex');
    this.#repos.set(name, { commit, refs: new Set(['main', 'HEAD', commit, ...refs]), access, files: stored });
    return commit;
  }

  /** Makes the hub tell another size of a file than it has. */
  claimSize(name: string, path: string, size: number): void {
    (this.#repos.get(name)?.files.get(path) as StoredFile).size = size;
  }

  rename(from: string, to: string): void {
    this.#repos.set(to, this.#repos.get(from) as StoredRepo);
    this.#repos.delete(from);
    this.#renamed.set(from, to);
  }

  /** The name of a file's blob. */
  etag(name: string, path: string): string {
    return (this.#repos.get(name)?.files.get(path) as StoredFile).etag;
  }

  /** Requests for bytes, as path and range. */
  get downloads(): string[] {
    return this.requests.filter(({ at }) => at === 'cdn' || at === 'hub').map(({ path, range }) => `${path} ${range}`);
  }

  async #serve(request: IncomingMessage, response: ServerResponse, handle: () => Promise<void> | void): Promise<void> {
    request.resume();
    response.on('error', () => {});
    try {
      await handle();
    } catch (error) {
      response.destroy(error as Error);
    }
  }

  #onHub(request: IncomingMessage, response: ServerResponse): Promise<void> | void {
    const url = new URL(request.url ?? '', this.endpoint);
    const [, apiName, kind, rest = ''] =
      /^\/api\/models\/([^/]+\/[^/]+)\/(revision|tree)\/(.+)$/.exec(url.pathname) ?? [];
    const ofFile = /^\/(api\/resolve-cache\/models\/)?([^/]+\/[^/]+?)(?:\/resolve)?\/([^/]+)\/(.+)$/;
    const [, cached, fileName, revision = '', path = ''] = (apiName === undefined && ofFile.exec(url.pathname)) || [];
    const at = apiName !== undefined ? 'api' : request.method === 'HEAD' ? 'head' : 'hub';
    this.#note(at, request, decodeURIComponent(path === '' ? url.pathname : path));
    const fault = this.#takeFault(at);
    if (fault?.text !== undefined) return void response.writeHead(fault.status ?? 200).end(fault.text);
    if (fault?.status !== undefined) return answer(response, fault.status, fault.headers, { error: 'a fault' });
    const name = apiName ?? fileName ?? '';
    const newName = this.#renamed.get(name);
    if (newName !== undefined) {
      return answer(response, 307, { location: (request.url ?? '').replace(name, newName) }, { error: 'moved' });
    }
    const repo = this.#repos.get(name);
    const hasToken = request.headers.authorization === `Bearer ${this.token}`;
    if (repo === undefined || (repo.access === 'private' && !hasToken)) {
      return answer(response, 401, { 'x-error-code': 'RepoNotFound' }, { error: 'Invalid username or password.' });
    }
    if (!repo.refs.has(decodeURIComponent(kind === undefined ? revision : rest))) {
      return answer(response, 404, { 'x-error-code': 'RevisionNotFound' }, { error: 'Invalid rev id' });
    }
    if (kind === 'revision') {
      const info = {
        _id: '0'.repeat(24),
        id: name,
        sha: repo.commit,
        private: repo.access === 'private',
        lastModified: 0,
      };
      return answer(response, 200, {}, { ...info, gated: repo.access === 'gated' && 'manual' });
    }
    if (kind === 'tree') return this.#list(repo, url, response);
    if (repo.access === 'gated' && !hasToken) {
      return answer(response, 401, { 'x-error-code': 'GatedRepo' }, { error: 'Access to the model is restricted' });
    }
    const file = repo.files.get(decodeURIComponent(path));
    if (file === undefined)
      return answer(response, 404, { 'x-error-code': 'EntryNotFound' }, { error: 'Entry not found' });
    response.setHeader('x-repo-commit', repo.commit);
    if (cached !== undefined) return this.#sendFile(file, fault, request, response);
    const linked = { 'x-linked-etag': `"${file.etag}"`, 'x-linked-size': String(file.size) };
    if (!file.isLfs) {
      const location = `/api/resolve-cache/models/${name}/${repo.commit}/${path}?etag=${file.etag}`;
      return answer(response, 307, { ...linked, location }, { redirect: location });
    }
    const link = randomBytes(8).toString('hex');
    this.#links.set(link, { file, uses: this.linkUses });
    // Another name of this machine: clients tell origins by host, some without the port.
    const location = `http://localhost:${(this.cdn.address() as AddressInfo).port}/${path}?signature=${link}`;
    return answer(response, 302, { ...linked, location, etag: '"of-the-redirect"' }, { redirect: location });
  }

  #onCdn(request: IncomingMessage, response: ServerResponse): Promise<void> | void {
    const url = new URL(request.url ?? '', this.endpoint);
    this.#note('cdn', request, decodeURIComponent(url.pathname.slice(1)));
    const fault = this.#takeFault('cdn');
    if (fault?.status !== undefined) return answer(response, fault.status, fault.headers, { error: 'a fault' });
    const link = this.#links.get(url.searchParams.get('signature') ?? '');
    // Like S3: a link that is signed and a token are one authorization too many.
    if (request.headers.authorization !== undefined) return answer(response, 400, {}, { error: 'InvalidArgument' });
    if (link === undefined || link.uses <= 0) return answer(response, 403, {}, { error: 'Request has expired' });
    link.uses -= 1;
    return this.#sendFile(link.file, fault, request, response);
  }

  #list(repo: StoredRepo, url: URL, response: ServerResponse): void {
    const entries = [...repo.files].map(([path, { size, etag, isLfs }]) => {
      if (!isLfs) return { type: 'file', oid: etag, size, path };
      const lfs = { oid: etag, size, pointerSize: 134 };
      return { type: 'file', oid: createHash('sha1').update(etag).digest('hex'), size, lfs, path };
    });
    const start = Number(url.searchParams.get('cursor') ?? 0);
    const end = start + LISTED_AT_ONCE;
    url.searchParams.set('cursor', String(end));
    const headers: Record<string, string> = end < entries.length ? { link: `<${url.href}>; rel="next"` } : {};
    answer(response, 200, headers, entries.slice(start, end));
  }

  async #sendFile(
    { bytes, etag, isLfs }: StoredFile,
    fault: Fault | undefined,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const range = fault?.ignoreRange ? undefined : request.headers.range;
    const [, first = '0', last = ''] = /^bytes=(\d+)-(\d*)$/.exec(range ?? '') ?? [];
    const from = Number(first);
    const to = last === '' ? bytes.length - 1 : Math.min(Number(last), bytes.length - 1);
    if (range !== undefined && from > to)
      return answer(response, 416, { 'content-range': `bytes */${bytes.length}` }, {});
    const body = fault?.corrupt ? Buffer.from(bytes.subarray(from, to + 1)) : bytes.subarray(from, to + 1);
    if (fault?.corrupt) body[0]! ^= 1;
    response.writeHead(range === undefined ? 200 : 206, {
      'content-length': body.length,
      'accept-ranges': 'bytes',
      etag: `"${etag}"`,
      ...(range === undefined ? {} : { 'content-range': `bytes ${from}-${to}/${bytes.length}` }),
    });
    if (request.method === 'HEAD') return void response.end();
    const end = Math.min(fault?.dropAfter ?? Infinity, body.length);
    if (this.bytesPerSecond === Infinity && this.holdAfter === Infinity && end === body.length) {
      if (isLfs) this.sentBytes += end;
      return void response.end(body);
    }
    for (let at = 0; at < end;) {
      await this.#turn(Math.min(SLICE_BYTES, end - at));
      while (isLfs && this.sentBytes >= this.holdAfter && !response.destroyed) await sleep(5);
      if (response.destroyed) return;
      const slice = body.subarray(
        at,
        Math.min(at + SLICE_BYTES, end, isLfs ? at + this.holdAfter - this.sentBytes : end),
      );
      at += slice.length;
      if (isLfs) this.sentBytes += slice.length;
      await new Promise<void>((resolve) => response.write(slice, () => resolve()));
    }
    if (end === body.length) response.end();
    else response.destroy();
  }

  /** Waits until the rate allows so many bytes more. */
  async #turn(bytes: number): Promise<void> {
    const now = performance.now();
    const at = Math.max(this.#nextSliceAt, now - 20);
    this.#nextSliceAt = at + (1000 * bytes) / this.bytesPerSecond;
    if (at > now) await sleep(at - now);
  }

  #takeFault(at: Fault['at']): Fault | undefined {
    const fault = this.faults.find((each) => each.at === at && (each.times ?? 1) > 0);
    if (fault !== undefined) fault.times = (fault.times ?? 1) - 1;
    return fault;
  }

  #note(at: Fault['at'], { method = '', headers }: IncomingMessage, path: string): void {
    this.requests.push({
      at,
      method,
      path,
      range: headers.range ?? null,
      authorization: headers.authorization ?? null,
    });
  }
}

function storedFile(bytes: Buffer): StoredFile {
  const isLfs = bytes.length > LFS_BYTES;
  const git = (): string => createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
  return { bytes, isLfs, size: bytes.length, etag: isLfs ? createHash('sha256').update(bytes).digest('hex') : git() };
}

function answer(response: ServerResponse, status: number, headers: Record<string, string> = {}, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
}
