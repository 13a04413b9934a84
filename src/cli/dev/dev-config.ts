import { randomBytes } from 'node:crypto'
import { resolve } from 'node:path'
import type { Config, ResourceConfig } from '../../config/config.ts'
import { loadConfig } from '../../config/load.ts'
import { parseYaml } from '../../config/yaml-file.ts'
import type { Profile, ProfileApi } from '../../demo/profiles/profile.ts'
import { PROFILES, profileFor } from '../../demo/profiles/profiles.ts'
import type { CommandIo } from '../command.ts'
import { loadCheckedConfig } from '../config/config-file.ts'
import type { ApiArgument, DevArguments } from './arguments.ts'

/** The client that Cloakroom is at the scripted provider. */
export const DEV_CLIENT = 'cloakroom-dev'
/** Environment variables that the configuration names; both are made up at the first start. */
const DEV_SECRET_NAMES = { client: 'CLOAKROOM_DEV_CLIENT_SECRET', key: 'CLOAKROOM_DEV_SESSION_KEY' }

/** A configuration to develop with, before its upstreams are relayed. */
export type DevConfig = {
  readonly profile: Profile
  /** What the provider issues access tokens for. */
  readonly apis: readonly ProfileApi[]
  /** Its YAML; names secrets by their environment variables. */
  readonly text: string
  /** What is not as in the operator's own configuration. */
  readonly notes: readonly string[]
  /** Loads it with other upstreams for routes, by the place of each in `routes:`. Throws ConfigError. */
  load(upstreams: ReadonlyMap<number, string>, secrets: DevSecrets): Config
}

export type DevSecrets = { readonly clientSecret: string; readonly sessionKey: string }

const VITE = 'http://localhost:5173'

/** The configuration of the arguments, or that of `--config` made fit. Throws ConfigError, or what is wrong with an argument. */
export function readDevConfig(args: DevArguments, io: CommandIo): DevConfig {
  return args.config === undefined ? ofArguments(args, io) : ofOperator(args, args.config, io)
}

/** What a document of `yaml` can do. */
type Document = ReturnType<typeof parseYaml>['document']

function ofArguments(args: DevArguments, io: CommandIo): DevConfig {
  const profile = PROFILES[args.profile ?? 'plain']
  const names = namesOf(args.apis)
  const apis = resourcesOf(args.apis, names)
  const resources = apis.map((api) => `  ${api.name}: ${inline(profile.resourceOf(api))}\n`)
  const routes = args.apis.map((api) => `  - ${inline(routeOf(api, names, apis))}\n`)
  const text = `# The configuration of \`cloakroom dev\`.
${settings(args)}
provider:
${providerLines(args, profile)}session:
  store: { type: memory }    # written to a file by cloakroom dev, so that sessions survive a restart
  keys: [ { env: ${DEV_SECRET_NAMES.key} } ]
  cookie: { name: ${cookieName(args)} }
resources:${resources.length === 0 ? ' {}\n' : `\n${resources.join('')}`}routes:
${routes.join('')}  - { path: /, id: app, upstream: "${args.app ?? VITE}", auth: anonymous, websocket: true }
`
  const { document } = parseYaml(text, 'cloakroom dev')
  return { profile, apis, text, notes: [], load: loader(document, io, 'cloakroom-dev.yaml') }
}

function providerLines(args: DevArguments, profile: Profile): string {
  const lines = Object.entries(providerOf(args, profile)).map(
    ([name, value]) => `  ${name}: ${inline(value)}\n`,
  )
  return lines.join('')
}

/** A value as YAML in one line. */
function inline(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(inline).join(', ')}]`
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value).filter(([, member]) => member !== undefined)
    return `{ ${members.map(([name, member]) => `${name}: ${inline(member)}`).join(', ')} }`
  }
  const isPlain =
    typeof value === 'string' &&
    /^[A-Za-z/][\w./-]*$/.test(value) &&
    !/^(?:true|false|null|y|n)$/i.test(value)
  return isPlain ? value : JSON.stringify(value)
}

const cookieName = ({ port }: DevArguments) => `cloakroom-${port}`

function settings({ port }: DevArguments): string {
  return `publicUrl: http://localhost:${port}\nlisten: 127.0.0.1:${port}\nadmin: { listen: "127.0.0.1:0" }`
}

function providerOf(args: DevArguments, profile: Profile): Record<string, unknown> {
  const { authMethod, ...settings } = profile.settings
  return {
    issuer: `http://127.0.0.1:${args.providerPort}${profile.issuerPath}`,
    clientId: DEV_CLIENT,
    clientAuth: { method: authMethod, secret: { env: DEV_SECRET_NAMES.client } },
    ...settings,
  }
}

/** A word for each API: the last part of its path that is not taken. */
function namesOf(apis: readonly ApiArgument[]): ReadonlyMap<ApiArgument, string> {
  const taken = new Set<string>(['app'])
  return new Map(
    apis.map((api) => {
      const parts = api.path.split('/').filter(Boolean)
      const short = (parts.at(-1) ?? 'api').replace(/[^A-Za-z0-9_-]/g, '-')
      const name = taken.has(short) ? parts.join('-').replace(/[^A-Za-z0-9_-]/g, '-') : short
      taken.add(name)
      return [api, name]
    }),
  )
}

/** One resource for each audience: APIs that share one share its tokens. */
function resourcesOf(apis: readonly ApiArgument[], names: ReadonlyMap<ApiArgument, string>): ProfileApi[] {
  const found = new Map<string, ProfileApi>()
  for (const api of apis) {
    if (api.audience === undefined) continue
    const { name, scopes } = found.get(api.audience) ?? { name: names.get(api) ?? '', scopes: [] }
    found.set(api.audience, {
      name,
      audience: api.audience,
      scopes: [...new Set([...scopes, ...api.scopes])],
    })
  }
  return [...found.values()]
}

function routeOf(
  api: ApiArgument,
  names: ReadonlyMap<ApiArgument, string>,
  apis: readonly ProfileApi[],
): Record<string, unknown> {
  const { path, upstream, rewrite, auth, audience, websocket } = api
  const resource = apis.find((one) => one.audience === audience)?.name
  return {
    ...{ path, id: names.get(api), upstream },
    ...(rewrite === undefined ? {} : { rewrite }),
    ...(auth === undefined ? {} : { auth }),
    ...(resource === undefined ? {} : { resource }),
    ...(websocket ? { websocket } : {}),
  }
}

/** Members of `provider:` that are about the real one, or that the scripted one does not have. */
const REPLACED = ['endpoints', 'tls', 'insecureHosts', 'sharedSignals', 'allowedTenants', 'userinfo'].concat([
  ...['par', 'dpop', 'responseType', 'responseMode', 'logoutToken', 'clientCapabilities'],
])

function ofOperator(args: DevArguments, file: string, io: CommandIo): DevConfig {
  const { config, text } = loadCheckedConfig(file, io, { requireSecrets: false })
  const { document } = parseYaml(text, file)
  const profile = args.profile === undefined ? profileFor(config.provider) : PROFILES[args.profile]
  const before = asObject(document.getIn(['provider']))
  const own = providerOf(args, profile)
  const { issuer, clientId, clientAuth } = own
  // Resources are named as in the operator's file, so the dialect stays, too; what a real host would imply is written out.
  const implied = profileFor(config.provider) === profile ? own : {}
  const kept = Object.fromEntries(Object.entries(before).filter(([name]) => !REPLACED.includes(name)))
  const loginParams = [...new Set([...config.provider.loginParams, 'login_hint'])]
  document.set(
    'provider',
    document.createNode({ ...implied, ...kept, issuer, clientId, clientAuth, loginParams }),
  )
  const { port } = args
  for (const name of ['trustProxy', 'hosts', 'tests', 'allowedOrigins']) document.delete(name)
  document.set('publicUrl', `http://localhost:${port}`)
  document.set('listen', `127.0.0.1:${port}`)
  document.set('admin', document.createNode({ listen: '127.0.0.1:0' }))
  document.setIn(['session', 'store'], document.createNode({ type: 'memory' }))
  document.setIn(['session', 'keys'], document.createNode([{ env: DEV_SECRET_NAMES.key }]))
  document.setIn(['session', 'cookie', 'name'], cookieName(args))
  moveUpstreams(document, config, args)
  const replaced = REPLACED.filter((name) => name in before)
  return {
    profile,
    apis: Object.values(config.resources).map(apiOfResource),
    text: String(document),
    notes: replaced.length === 0 ? [] : [`not as in ${file}: provider.${replaced.join(', provider.')}`],
    load: loader(document, io, file),
  }
}

/** Says where an upstream is on this machine. */
function moveUpstreams(document: Document, { routes }: Config, args: DevArguments): void {
  const moved = args.apis.map(({ path, upstream }) => ({ option: `--api ${path}`, path, upstream }))
  if (args.app !== undefined) moved.push({ option: '--app', path: '/', upstream: args.app })
  for (const { option, path, upstream } of moved) {
    const index = routes.findIndex((route) => route.path === path)
    if (index === -1) {
      const known = routes.map((route) => route.path).join(', ')
      throw new Error(`${option}: ${args.config} has no route with path ${path}; its paths are ${known}`)
    }
    document.setIn(['routes', index, 'upstream'], upstream)
    for (const name of ['tls', 'http2']) document.deleteIn(['routes', index, name])
  }
}

function apiOfResource({ name, audience, resource, scopes }: ResourceConfig): ProfileApi {
  return {
    ...{ name, scopes, audience: audience ?? resource ?? name },
    ...(resource === undefined ? {} : { resource }),
  }
}

function asObject(node: unknown): Record<string, unknown> {
  return ((node as { toJSON?: () => unknown } | undefined)?.toJSON?.() ?? {}) as Record<string, unknown>
}

function loader(document: Document, io: CommandIo, file: string): DevConfig['load'] {
  return (upstreams, { clientSecret, sessionKey }) => {
    const relayed = document.clone()
    for (const [index, upstream] of upstreams) {
      relayed.setIn(['routes', index, 'upstream'], upstream)
    }
    const env = {
      ...io.env,
      [DEV_SECRET_NAMES.client]: clientSecret,
      [DEV_SECRET_NAMES.key]: sessionKey,
    }
    return loadConfig({ text: String(relayed), file: resolve(file), env }).config
  }
}

/** Secrets for a first start. */
export function newDevSecrets(): DevSecrets {
  const secret = () => randomBytes(32).toString('base64url')
  return { clientSecret: secret(), sessionKey: secret() }
}
