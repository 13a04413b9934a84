import { build, type Cloakroom } from '../../src/app/build.ts'
import type { Clock } from '../../src/async/clock.ts'
import { startReloading } from '../../src/cli/reload.ts'
import type { Config } from '../../src/config/config.ts'
import { loadConfig } from '../../src/config/load.ts'
import { createLogger, type Logger } from '../../src/log.ts'
import { type Browser, type BrowserOptions, createBrowser } from './browsers/browser.ts'
import { type ConfigData, configWith } from './config/cloakroom-config.ts'
import { freePort } from './ports.ts'

/** What a config of a test may be: a whole YAML text, or members to change in a complete default. */
export type ConfigInput = string | ConfigData

/** Ports that are free, for configs that must name them before anything listens. */
export type Ports = { readonly publicPort: number; readonly adminPort: number }

/** A Cloakroom running in this process. */
export type RunningCloakroom = {
  /** The origin browsers see. */
  readonly publicUrl: string
  /** Where the public listener is really reached. */
  readonly listenUrl: string
  readonly adminUrl: string
  readonly config: Config
  /** Every log line so far, as JSON text. */
  readonly logs: string[]
  /** A user agent that reaches `publicUrl` here. */
  browser(options?: Partial<BrowserOptions>): Browser
  /** Changes members of the config it was started with, as an operator does in the file. */
  reload(changes: ConfigData): ReturnType<Cloakroom['reload']>
  /** Reads a file, as `serve` does at SIGHUP: an invalid one is refused in the log. */
  reloadFile(file: string): Promise<void>
  close(): Promise<void>
}

/** How the process around it is set up. */
export type CloakroomOptions = {
  readonly env?: Record<string, string>
  /** Epoch ms. */
  readonly now?: () => number
  /** That of `now` unless given. */
  readonly monotonicNow?: () => number
  /** The clock of the process, its sockets and timers included; the machine's unless given. */
  readonly clock?: Clock
  /** For how long it leaves idle connections open when it closes. A moment unless given: tests close often. Milliseconds. */
  readonly idleGraceMs?: number
}

/**
 * Starts Cloakroom in this process on free ports. Given a function, it is called with them. The default config has the
 * memory store and a fresh key; a test adds at least `provider` and `routes`. Another `publicUrl`, https too, is fine.
 */
export async function startCloakroom(
  input: ConfigInput | ((ports: Ports) => ConfigInput),
  options: CloakroomOptions = {},
): Promise<RunningCloakroom> {
  for (let attempt = 1; ; attempt += 1) {
    const ports = { publicPort: await freePort(), adminPort: await freePort() }
    try {
      return await startOn(ports, typeof input === 'function' ? input(ports) : input, options)
    } catch (error) {
      // Somebody else may take a free port before we do.
      if (attempt === 3 || (error as { code?: string }).code !== 'EADDRINUSE') throw error
    }
  }
}

async function startOn(
  ports: Ports,
  input: ConfigInput,
  options: CloakroomOptions,
): Promise<RunningCloakroom> {
  const text = typeof input === 'string' ? input : JSON.stringify(configOn(ports, input))
  const load = (changed: string) =>
    loadConfig({ text: changed, file: 'cloakroom.yaml', env: options.env ?? {} }).config
  const config = load(text)
  const { log, lines } = captureLog()
  const { clock, now, monotonicNow, idleGraceMs = 50 } = options
  const clocks = {
    ...(clock ? { clock } : {}),
    ...(now ? { now } : {}),
    ...(monotonicNow ? { monotonicNow } : {}),
  }
  const cloakroom = await build(config, { log, idleGraceMs, ...clocks })
  const { publicPort, adminPort } = await cloakroom.listen()
  const listenUrl = `http://127.0.0.1:${publicPort}`
  const browsers: Browser[] = []
  return {
    ...{
      publicUrl: config.publicUrl,
      listenUrl,
      adminUrl: `http://127.0.0.1:${adminPort}`,
      config,
      logs: lines,
    },
    reloadFile: (file) => reloadFile(file, { cloakroom, log, env: options.env ?? {} }),
    reload: (changes) => cloakroom.reload(() => load(JSON.stringify({ ...JSON.parse(text), ...changes }))),
    browser: (wishes = {}) => {
      const connect = { [config.publicUrl]: listenUrl, ...wishes.connect }
      const browser = createBrowser({
        ...{ origin: config.publicUrl, basePath: config.basePath },
        ...wishes,
        connect,
      })
      browsers.push(browser)
      return browser
    },
    close: async () => {
      for (const browser of browsers) browser.close()
      await cloakroom.close()
    },
  }
}

async function reloadFile(
  file: string,
  { cloakroom, log, env }: { cloakroom: Cloakroom; log: Logger; env: Record<string, string> },
): Promise<void> {
  let hangUp: (() => void) | undefined
  const ended = Promise.withResolvers<void>()
  const stop = startReloading({
    ...{ file, log, io: { env, stdout: process.stdout, stderr: process.stderr }, seen: new Map() },
    cloakroom: { reload: (read) => cloakroom.reload(read).finally(() => setImmediate(ended.resolve)) },
    hangUp: {
      listen(listener) {
        hangUp = listener
      },
    },
  })
  hangUp?.()
  await ended.promise
  stop()
}

function configOn({ publicPort, adminPort }: Ports, overrides: ConfigData): ConfigData {
  return configWith(overrides, {
    publicUrl: `http://127.0.0.1:${publicPort}`,
    listen: `127.0.0.1:${publicPort}`,
    adminListen: `127.0.0.1:${adminPort}`,
  })
}

/** A Logger whose lines land in an array. */
export function captureLog(): { log: Logger; lines: string[] } {
  const lines: string[] = []
  return { log: createLogger({ destination: { write: (line) => lines.push(line) } }), lines }
}
