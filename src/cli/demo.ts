import { randomBytes } from 'node:crypto'
import { parseArgs } from 'node:util'
import { build } from '../app/build.ts'
import { loadConfig } from '../config/load.ts'
import { startDemoBackends } from '../demo/demo-backends.ts'
import { demoConfigText } from '../demo/demo-config.ts'
import type { TokenRequest } from '../demo/provider/identity-provider-options.ts'
import { createLogger, type Logger } from '../log.ts'
import type { CommandIo } from './command.ts'
import { untilStopped } from './process.ts'

/** How a demo differs from the usual one. */
export type DemoOptions = {
  /** Port of `http://localhost`, 1 to 65535. */
  readonly port: number
  /** Port of the identity provider; default any free one. */
  readonly providerPort?: number
  /** Life of the APIs' access tokens; default 60 s, so that a person sees them renewed. */
  readonly accessTokenTtlSeconds?: number
  readonly log: Logger
  /** Told after every token request; sees live tokens. */
  readonly onTokenRequest?: (request: TokenRequest) => void
}

/** A demo that listens. */
export type Demo = {
  readonly publicUrl: string
  /** Origin of its probes and metrics. */
  readonly adminUrl: string
  /** The YAML that this Cloakroom runs with; holds no secret. */
  readonly configText: string
  close(): Promise<void>
}

const USAGE = `usage: cloakroom demo [--port 8080] [--provider-port PORT] [--print-config] [--verbose]

  --port PORT            where to open it in a browser: http://localhost:PORT
  --provider-port PORT   a fixed port for the identity provider, e.g. to forward it
  --print-config         show the configuration that the demo's Cloakroom runs with, and end
  --verbose              log every request
`

/** Runs identity provider, two APIs, a single-page application and Cloakroom until SIGINT or SIGTERM; resolves with the exit code. */
export async function demoCommand(args: string[], io: CommandIo): Promise<number> {
  const options = readArguments(args)
  if (options === 'help' || typeof options === 'string') {
    const [out, code] = options === 'help' ? [io.stdout, 0] : [io.stderr, 1]
    out.write(options === 'help' ? USAGE : `cloakroom demo: ${options}\n\n${USAGE}`)
    return code
  }
  if (options.printConfig) {
    io.stdout.write(await demoConfig(options))
    return 0
  }
  const stopped = untilStopped(io.stop)
  const log = createLogger({ level: options.verbose ? 'info' : 'error' })
  try {
    const demo = await startDemo({ ...options, log })
    io.stdout.write(greeting(demo))
    await stopped
    await demo.close()
    return 0
  } catch (error) {
    io.stderr.write(`${explain(error, options)}\n`)
    return 1
  }
}

/** The YAML that a demo would run with; its neighbours have ports that are free now. */
async function demoConfig({
  port,
  providerPort,
}: Pick<DemoOptions, 'port' | 'providerPort'>): Promise<string> {
  const publicUrl = `http://localhost:${port}`
  const backends = await startDemoBackends({ publicUrl, accessTokenTtlSeconds: 60, providerPort })
  await backends.close()
  return demoConfigText({ publicUrl, listen: `127.0.0.1:${port}`, adminListen: '127.0.0.1:0', backends })
}

/** Starts everything on 127.0.0.1 and in memory. Rejects, with nothing left running, when a port is taken. */
export async function startDemo(options: DemoOptions): Promise<Demo> {
  const publicUrl = `http://localhost:${options.port}`
  const { accessTokenTtlSeconds = 60, providerPort, onTokenRequest } = options
  const backends = await startDemoBackends({ publicUrl, accessTokenTtlSeconds, providerPort, onTokenRequest })
  try {
    const listen = `127.0.0.1:${options.port}`
    const configText = demoConfigText({ publicUrl, listen, adminListen: '127.0.0.1:0', backends })
    const env = {
      CLOAKROOM_DEMO_CLIENT_SECRET: backends.clientSecret,
      CLOAKROOM_DEMO_SESSION_KEY: randomBytes(32).toString('base64url'),
    }
    const { config } = loadConfig({ text: configText, file: 'demo.yaml', env })
    const cloakroom = await build(config, { log: options.log, drainMs: 500 })
    const { adminPort } = await cloakroom.listen()
    return {
      publicUrl,
      adminUrl: `http://127.0.0.1:${adminPort}`,
      configText,
      async close() {
        await cloakroom.close()
        await backends.close()
      },
    }
  } catch (error) {
    await backends.close()
    throw error
  }
}

type Arguments = {
  readonly port: number
  readonly providerPort: number | undefined
  readonly printConfig: boolean
  readonly verbose: boolean
}

/** The arguments, `help`, or what is wrong with them. */
function readArguments(args: string[]): Arguments | string {
  const parsed = parse(args)
  if (typeof parsed === 'string') return parsed
  if (parsed.help) return 'help'
  const port = portOf(parsed.port ?? '8080')
  const providerPort = parsed['provider-port'] === undefined ? undefined : portOf(parsed['provider-port'])
  if (port === null || providerPort === null) return 'a port is a number from 1 to 65535, e.g. --port 8081'
  return {
    port,
    providerPort,
    printConfig: parsed['print-config'] ?? false,
    verbose: parsed.verbose ?? false,
  }
}

function parse(args: string[]) {
  const options = {
    port: { type: 'string' },
    'provider-port': { type: 'string' },
    'print-config': { type: 'boolean' },
    verbose: { type: 'boolean' },
    help: { type: 'boolean' },
  } as const
  try {
    return parseArgs({ args, options }).values
  } catch (error) {
    return error instanceof Error ? error.message : 'unknown option'
  }
}

function portOf(text: string): number | null {
  const port = Number(text)
  return /^\d+$/.test(text) && port >= 1 && port <= 65535 ? port : null
}

function greeting({ publicUrl, adminUrl }: Demo): string {
  return `
  Cloakroom's demo is open:  ${publicUrl}

  Sign in as Ada Lovelace, Grace Hopper or anybody, and watch the tokens of two APIs being renewed.
  For operators: the console at ${adminUrl}/, --print-config, --verbose. Ctrl+C ends it.

`
}

function explain(error: unknown, { port, providerPort }: Arguments): string {
  const { code, port: taken } = error as { code?: unknown; port?: unknown }
  if (code !== 'EADDRINUSE')
    return `cloakroom demo: ${error instanceof Error ? error.message : 'cannot start'}`
  if (taken === providerPort) return `cloakroom demo: port ${taken} is taken. Choose another --provider-port.`
  const free = port < 65535 ? port + 1 : 8080
  return `cloakroom demo: port ${port} is taken by another program. Stop that one, or choose another port:
  npx cloakroom demo --port ${free}      (or: npm start -- --port ${free})`
}
