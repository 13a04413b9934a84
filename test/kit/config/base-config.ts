import { createHash } from 'node:crypto'
import { ConfigError, type ConfigProblem, type LoadedConfig, loadConfig } from '../../../src/config/load.ts'

/** 32 bytes that look random, and always the same. */
export const SESSION_KEY_BYTES = createHash('sha256').update('a session key').digest()

/** The same in base64url. */
export const SESSION_KEY = SESSION_KEY_BYTES.toString('base64url')

/** Another one. */
export const SESSION_KEY_2 = createHash('sha256').update('another session key').digest('base64url')

/** A valid config, one key in most lines, so that a test can change a line and point at it. */
export const BASE = `publicUrl: https://app.example.com
listen: 127.0.0.1:8080
admin:
  listen: 127.0.0.1:9090
trustProxy: [10.0.0.0/8]
basePath: /bff
provider:
  issuer: https://id.example.com
  clientId: spa
  clientAuth:
    method: client_secret_post
    secret: { env: CLIENT_SECRET }
  resourceDialect: scope
  scopes: [openid, profile, offline_access]
  authorizationParams: { domain_hint: contoso.com }
  timeout: 5s
session:
  store:
    type: redis
    url: rediss://redis:6379
    keyPrefix: cloakroom
  keys:
    - { env: SESSION_KEY }
  idleTimeout: 30m
  absoluteTimeout: 10h
  cookie: { name: __Host-Http-cloakroom, sameSite: strict }
resources:
  orders: { scopes: [api://orders/.default], audience: api://orders }
  billing: { scopes: [api://billing/.default] }
routes:
  - path: /api/orders
    id: orders
    upstream: http://orders:8080
    rewrite: /v1
    resource: orders
    methods: [GET, POST]
    timeout: { connect: 2s, response: 30s, idle: 5m }
    maxBody: 10MiB
    headers: { x-user-id: "{claims.sub}" }
  - path: /api/billing
    id: billing
    upstream: https://billing
    resource: billing
  - path: /
    id: spa
    upstream: http://spa
    auth: anonymous
tests:
  - request: GET /api/orders/42
    expect: { route: orders }
`

/** The environment that BASE needs. */
export const ENV = { CLIENT_SECRET: 'hush-hush', SESSION_KEY }

/** Loads a text as config.yaml; no secret file exists unless \`files\` has it. */
export function load(
  text: string,
  { env = ENV, files = {} }: { env?: Record<string, string>; files?: Record<string, string> } = {},
): LoadedConfig {
  const readFile = (path: string): string => {
    const content = files[path]
    if (content === undefined) throw Object.assign(new Error(path), { code: 'ENOENT' })
    return content
  }
  return loadConfig({ text, file: 'config.yaml', env, readFile })
}

/** BASE with one part replaced; the part must be there exactly once. */
export function changed(from: string, to: string): string {
  if (BASE.split(from).length !== 2) throw new Error(`not once in BASE: ${from}`)
  return BASE.replace(from, () => to)
}

/** What the load of a text reports; fails when it reports nothing. */
export function problemsOf(text: string, options?: Parameters<typeof load>[1]): readonly ConfigProblem[] {
  try {
    load(text, options)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  throw new Error('the config was accepted')
}
