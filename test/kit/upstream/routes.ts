import type { RouteConfig } from '../../../src/config/config.ts'
import { createAccessCheck } from '../../../src/proxy/access-rules.ts'

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

/** Judges access rules at a time that stands still, epoch ms. */
export const accessCheckAt = (now: number, scopes: readonly string[] = []) =>
  createAccessCheck({ now: () => now, clockToleranceMs: 0, scopesOf: () => scopes })
