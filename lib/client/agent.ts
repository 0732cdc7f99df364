import { Agent, type Dispatcher } from 'undici';

/**
 * Connections to a server.
 * @param apiKey sent with every request; null: none
 * @param silenceLimitMs longest silence of the server; 0: any
 */
export function createAgent(apiKey: string | null, silenceLimitMs: number): Dispatcher {
  const agent = new Agent({ headersTimeout: silenceLimitMs, bodyTimeout: silenceLimitMs });
  if (apiKey === null) return agent;
  const authorization = `Bearer ${apiKey}`;
  return agent.compose((dispatch) => (options, handler) => {
    const headers = { ...(options.headers as Record<string, string> | undefined), authorization };
    return dispatch({ ...options, headers }, handler);
  });
}
