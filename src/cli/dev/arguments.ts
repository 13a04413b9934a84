import { parseArgs } from 'node:util'
import { isProfileName, PROFILES, type ProfileName } from '../../demo/profiles/profiles.ts'

/** An API of `--api`. */
export type ApiArgument = {
  readonly path: string
  /** Origin. */
  readonly upstream: string
  readonly audience?: string
  readonly scopes: readonly string[]
  readonly auth?: string
  readonly rewrite?: string
  readonly websocket: boolean
}

/** What `cloakroom dev` was told. */
export type DevArguments = {
  /** Origin; undefined: that of the configuration, or Vite's. */
  readonly app: string | undefined
  readonly apis: readonly ApiArgument[]
  readonly config: string | undefined
  readonly profile: ProfileName | undefined
  readonly persons: string | undefined
  readonly port: number
  readonly panelPort: number
  readonly providerPort: number
  readonly tokenSeconds: number
  readonly fresh: boolean
  readonly printConfig: boolean
  readonly verbose: boolean
}

export const DEV_USAGE = `usage: cloakroom dev [--app URL] [--api PATH=URL[,aud=AUD]]… [options]

A development server around your own application and APIs: sign-in with persons of your choice at an identity provider that is started with it, sessions and tokens as in production, and a panel with switches. Everything listens on this machine only.

  --app URL             your application's development server; default http://localhost:5173, that of Vite
  --api PATH=URL,…      a route to an API of yours, as often as you like; the parts behind the URL, in any order:
                          aud=AUD         it gets access tokens for this audience; without it, none
                          scopes=A+B      their scopes, if it needs any
                          rewrite=/x      replaces PATH in what it sees
                          auth=optional   or anonymous; default required
                          websocket       passes WebSockets
  --config FILE         your own configuration in place of --api: its provider, session store and addresses of Cloakroom
                        are replaced; --app and --api PATH=URL then say where an upstream of it is on this machine
  --as PROFILE          how the provider behaves: ${Object.keys(PROFILES).join(' | ')}
                        default: plain, or what is closest to the provider of --config
  --persons FILE        who can sign in: a YAML list of claims, each with sub and name; default Ada, Grace and Alan
  --port PORT           where to open it: http://localhost:PORT; default 8080
  --panel-port PORT     the panel: http://127.0.0.1:PORT; default the next one
  --provider-port PORT  the provider; default the one after that
  --token-seconds N     life of access tokens; default 300
  --fresh               forget earlier sessions
  --print-config        show the configuration that Cloakroom runs with, and end
  --verbose             print every request, too
`

/** Reads the arguments; `help`, or throws with the field, the value and the cure. */
export function readDevArguments(args: string[]): DevArguments | 'help' {
  const values = parse(args)
  if (values.help) return 'help'
  const port = portOf('--port', values.port ?? '8080')
  const [panelPort, providerPort] = [
    portOf('--panel-port', values['panel-port'] ?? String(port + 1)),
    portOf('--provider-port', values['provider-port'] ?? String(port + 2)),
  ]
  if (new Set([port, panelPort, providerPort]).size < 3)
    throw new Error(
      `--port ${port}, --panel-port ${panelPort} and --provider-port ${providerPort} must differ`,
    )
  return {
    ...{ port, panelPort, providerPort },
    app: values.app === undefined ? undefined : originOf('--app', values.app),
    apis: withoutRepeated((values.api ?? []).map(apiOf)),
    ...{ config: values.config, persons: values.persons, profile: profileOf(values.as) },
    tokenSeconds: secondsOf(values['token-seconds'] ?? '300'),
    fresh: values.fresh ?? false,
    printConfig: values['print-config'] ?? false,
    verbose: values.verbose ?? false,
  }
}

function parse(args: string[]) {
  const text = { type: 'string' } as const
  const flag = { type: 'boolean' } as const
  const list = { type: 'string', multiple: true } as const
  const options = {
    ...{ app: text, api: list, config: text, as: text, persons: text },
    ...{ port: text, 'panel-port': text, 'provider-port': text, 'token-seconds': text },
    ...{ fresh: flag, 'print-config': flag, verbose: flag, help: { type: 'boolean', short: 'h' } as const },
  } as const
  return parseArgs({ args, options }).values
}

function portOf(option: string, text: string): number {
  const port = Number(text)
  if (/^\d+$/.test(text) && port >= 1 && port <= 65535) return port
  throw new Error(
    `${option} must be a port from 1 to 65535, e.g. ${option} 8090 (got ${JSON.stringify(text)})`,
  )
}

function secondsOf(text: string): number {
  const seconds = Number(text)
  if (/^\d+$/.test(text) && seconds >= 1 && seconds <= 86_400) return seconds
  throw new Error(`--token-seconds must be a number from 1 to 86400, e.g. 60 (got ${JSON.stringify(text)})`)
}

function profileOf(text: string | undefined): ProfileName | undefined {
  if (text === undefined || isProfileName(text)) return text
  throw new Error(`--as must be one of ${Object.keys(PROFILES).join(', ')} (got ${JSON.stringify(text)})`)
}

function originOf(option: string, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const isOrigin = url && /^https?:$/.test(url.protocol) && url.pathname === '/' && url.search === ''
  if (isOrigin && url.username === '' && url.hash === '') return url.origin
  throw new Error(
    `${option} must be an http or https URL without a path, e.g. http://localhost:5173 (got ${JSON.stringify(text)})`,
  )
}

const EXAMPLE = '--api /api/orders=http://localhost:5001,aud=api://orders'

function apiOf(text: string): ApiArgument {
  const [first = '', ...parts] = text.split(',')
  const at = first.indexOf('=')
  if (at < 1) throw new Error(`--api must be PATH=URL, e.g. ${EXAMPLE} (got ${JSON.stringify(text)})`)
  const path = first.slice(0, at)
  if (!/^\/[^\s?#]*[^/\s?#]$/.test(path))
    throw new Error(
      `--api: the path must begin with / and not end with it, e.g. ${EXAMPLE} (got ${JSON.stringify(path)})`,
    )
  const upstream = originOf(`--api ${path}=`, first.slice(at + 1))
  const known = new Map<string, string>()
  for (const part of parts) {
    const [name = '', ...value] = part.split('=')
    if (!PARTS.includes(name))
      throw new Error(`--api ${path}: "${name}" is not known; use ${PARTS.join(', ')}, e.g. ${EXAMPLE}`)
    if (name !== 'websocket' && value.join('=') === '')
      throw new Error(`--api ${path}: ${name} needs a value, e.g. ${EXAMPLE}`)
    known.set(name, value.join('='))
  }
  const [audience, auth, rewrite] = [known.get('aud'), known.get('auth'), known.get('rewrite')]
  return {
    ...{ path, upstream, websocket: known.has('websocket') },
    scopes: (known.get('scopes') ?? '').split('+').filter(Boolean),
    ...(audience !== undefined && { audience }),
    ...(auth !== undefined && { auth }),
    ...(rewrite !== undefined && { rewrite }),
  }
}

const PARTS: readonly string[] = ['aud', 'scopes', 'rewrite', 'auth', 'websocket']

function withoutRepeated(apis: ApiArgument[]): ApiArgument[] {
  const paths = apis.map(({ path }) => path)
  const repeated = paths.find((path, index) => paths.indexOf(path) !== index)
  if (repeated === undefined) return apis
  throw new Error(`--api ${repeated} is given twice: give each path once`)
}
