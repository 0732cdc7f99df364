import type { FastifyInstance } from 'fastify';

const MAX_SUGGESTIONS = 3;

/** 404 with a body that says what was probably meant. Must see all other routes being added. */
export function notFoundRoute(app: FastifyInstance): void {
  const routes = new Map<string, Set<string>>();
  app.addHook('onRoute', ({ url, method }) => {
    const methods = routes.get(url) ?? new Set<string>();
    for (const name of [method].flat()) if (name !== 'HEAD') methods.add(name);
    routes.set(url, methods);
  });
  const written = (url: string): string => `${[...routes.get(url)!].join(' or ')} ${url}`;

  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?', 1)[0]!.slice(0, 100);
    const message = routes.has(path)
      ? `${request.method} is not possible here; use ${written(path)}.`
      : `There is no ${request.method} ${path}. The closest are: ${closest(path, [...routes.keys()])
          .map(written)
          .join(', ')}.`;
    return reply.code(404).send({ object: 'error', message, type: 'NotFound', param: null, code: 404 });
  });
}

function closest(path: string, known: string[]): string[] {
  const distances = new Map(known.map((url) => [url, editDistance(path, url)]));
  return known.sort((a, b) => distances.get(a)! - distances.get(b)! || (a < b ? -1 : 1)).slice(0, MAX_SUGGESTIONS);
}

/** Levenshtein's: insertions, deletions and replacements of one character. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; ++i) {
    const next = [i];
    for (let j = 1; j <= b.length; ++j) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
