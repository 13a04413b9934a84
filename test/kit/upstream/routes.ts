import type { RouteConfig } from '../../../src/config/config.ts'

/** A complete route for tests; only what a test is about needs to be given. */
export function routeWith(parts: Partial<RouteConfig> & { path: string }): RouteConfig {
  return {
    id: parts.path,
    upstream: 'http://upstream.test:8080',
    auth: 'required',
    csrf: 'header',
    timeout: { connectMs: 2_000, responseMs: 30_000, idleMs: 300_000 },
    websocket: false,
    http2: false,
    breaker: { failures: 20, pauseMs: 1_000 },
    headers: [],
    encodedSlashes: 'reject',
    preserveHost: false,
    ...parts,
  }
}
