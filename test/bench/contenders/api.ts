import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startNginx } from '../../wire/foreign-servers.ts'

type Scope = { after(cleanUp: () => unknown): void }

/** What the API serves: 800 bytes of JSON for GET, 64 KiB for GET, and 800 bytes for an upload that was read whole. */
export const PATHS = { small: '/api/orders/42', large: '/api/large', upload: '/api/upload' } as const

const SMALL = JSON.stringify({ order: 42, note: 'x'.repeat(800 - '{"order":42,"note":""}'.length) })
const LARGE = JSON.stringify({ report: 'x'.repeat(64 * 1024 - '{"report":""}'.length) })

/**
 * The API behind all contenders: an nginx, which answers in a fraction of the time that any of them needs, so that the
 * measured process is the busy one. Without a bearer token everything is 401: no contender gets by without its session.
 */
export async function startApi(t: Scope): Promise<{ readonly origin: string; readonly pid: number }> {
  const folder = mkdtempSync(join(tmpdir(), 'cloakroom-bench-api-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  writeFileSync(join(folder, 'large.json'), LARGE)
  const nginx = await startNginx({
    http: `
      keepalive_requests 1000000000; keepalive_timeout 1h; default_type application/json;
      client_max_body_size 1m; client_body_buffer_size 64k; sendfile on; tcp_nodelay on;
      open_file_cache max=10 inactive=1h; open_file_cache_valid 1h; etag off;
      upstream itself { server unix:${folder}/itself.sock; keepalive 64; keepalive_requests 1000000000; }
      server { listen unix:${folder}/itself.sock; location / { return 200 '${SMALL}'; } }`,
    // nginx reads a body only for an upstream: it passes the rest of an upload, without the body, to itself.
    server: `
      if ($http_authorization !~ "^Bearer .") { return 401; }
      location / { return 200 '${SMALL}'; }
      location = ${PATHS.large} { root ${folder}; rewrite ^ /large.json break; add_header Last-Modified ""; }
      location = ${PATHS.upload} {
        proxy_pass http://itself; proxy_http_version 1.1; proxy_set_header Connection "";
        proxy_pass_request_body off; proxy_set_header Content-Length "";
      }`,
  })
  t.after(() => nginx.stop())
  return { origin: `http://127.0.0.1:${nginx.port}`, pid: nginx.pid }
}
