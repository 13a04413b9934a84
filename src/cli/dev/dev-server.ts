import type { IncomingMessage, ServerResponse } from 'node:http'
import { build } from '../../app/build.ts'
import { systemClock } from '../../async/clock.ts'
import type { Config } from '../../config/config.ts'
import { createLiveLog, type LiveLog } from '../../demo/dev/live-log.ts'
import { isLoopbackHost } from '../../demo/dev/own-host.ts'
import { startPanel } from '../../demo/dev/panel-server.ts'
import { startRelay } from '../../demo/dev/relay.ts'
import { createSwitches, type DevApi, type Switches } from '../../demo/dev/switches.ts'
import type { LoopbackServer } from '../../demo/loopback-server.ts'
import { type ScriptedProvider, startScriptedProvider } from '../../demo/profiles/scripted-provider.ts'
import type { Person } from '../../demo/provider/identity-provider-options.ts'
import { describeError } from '../../errors.ts'
import { createLogger } from '../../log.ts'
import type { MemoryStore } from '../../store/memory/memory-store.ts'
import type { StoreTimes } from '../../store/port.ts'
import type { DevArguments } from './arguments.ts'
import { DEV_CLIENT, type DevConfig, newDevSecrets } from './dev-config.ts'
import { agedContents, createNotedStore, createSessionControl } from './dev-sessions.ts'
import type { StateFile } from './state-file.ts'

/** A development server that listens. */
export type DevServer = {
  readonly publicUrl: string
  readonly panelUrl: string
  readonly issuer: string
  readonly jwksUrl: string
  readonly routes: Config['routes']
  /** Whether sessions of before go on. */
  readonly isContinued: boolean
  close(): Promise<void>
}

export type DevServerOptions = {
  readonly args: DevArguments
  readonly devConfig: DevConfig
  readonly persons: readonly Person[]
  readonly stateFile: StateFile
  /** Takes each line of Cloakroom's log. */
  readonly onLogLine?: (line: string) => void
}

const SAVED_AFTER_MS = 200
const DRAIN_MS = 500

/**
 * Starts provider, relays, Cloakroom and panel, in this order. Rejects, with nothing left running, with the system's error
 * for a port that is taken, and with ConfigError.
 */
export async function startDevServer(options: DevServerOptions): Promise<DevServer> {
  const opened: { close(): Promise<void> }[] = []
  const close = async () => {
    for (const one of opened.reverse()) await one.close()
  }
  try {
    return await startAll(options, {
      keep(one) {
        opened.push(one)
        return one
      },
      close,
    })
  } catch (error) {
    await close()
    throw error
  }
}

type Opened = { keep<T extends { close(): Promise<void> }>(one: T): T; close(): Promise<void> }

async function startAll(options: DevServerOptions, { keep, close }: Opened): Promise<DevServer> {
  const { args, devConfig, persons, stateFile } = options
  const live = createLiveLog(systemClock.now)
  const written = devConfig.load(new Map(), newDevSecrets())
  const { publicUrl, basePath } = written
  const saved = args.fresh ? undefined : savedState(stateFile, written.provider.issuer)
  const secrets = saved?.secrets ?? newDevSecrets()
  const provider = keep(
    await startScriptedProvider({
      ...{ profile: devConfig.profile, port: args.providerPort, persons, apis: devConfig.apis },
      client: { clientId: DEV_CLIENT, clientSecret: secrets.clientSecret },
      clientName: 'your application',
      redirectUri: `${publicUrl}${basePath}/callback`,
      postLogoutRedirectUri: `${publicUrl}${basePath}/logged-out`,
      accessTokenSeconds: args.tokenSeconds,
      saved: saved?.provider,
      observe: live.addTokenEvent,
    }),
  )
  let switches: Switches | undefined
  const upstreams = await startRelays(written, keep, (path, req) => switches?.answerFor(path, req))
  const config = devConfig.load(upstreams, secrets)
  const state = keepState({
    ...{ stateFile, provider, secrets, issuer: config.provider.issuer },
    failed: (why) => live.add({ kind: 'notice', what: `sessions are not kept over a restart: ${why}` }),
  })
  let store: MemoryStore | undefined
  const cloakroom = await build(config, {
    log: createLogger({ destination: { write: (line) => told(line, live, options) } }),
    drainMs: DRAIN_MS,
    openStore(times: StoreTimes) {
      const contents = saved && agedContents(saved.store, systemClock.now() - saved.savedAt)
      store = createNotedStore(times, { contents, used: state.soon, closing: state.atLast })
      return state.follow(store)
    },
    answerFirst: createHostRedirect(publicUrl),
  })
  keep(cloakroom)
  const apis = apisOf(config, devConfig)
  switches = createSwitches({
    ...{ provider, apis, log: live, secondFactorChallenge: devConfig.profile.secondFactorChallenge },
    sessions: createSessionControl({
      ...{ config, store: store!, clock: systemClock },
      persons: () => provider.persons().map(({ sub }) => sub),
    }),
    loginUrl: `${publicUrl}${basePath}/login`,
  })
  const panel = keep(
    await startPanel({
      ...{ port: args.panelPort, switches, log: live },
      about: {
        ...{ appUrl: publicUrl, provider: devConfig.profile.title },
        ...{ issuer: provider.issuer, jwksUrl: provider.jwksUrl },
      },
    }),
  )
  await cloakroom.listen()
  return {
    ...{ publicUrl, panelUrl: panel.origin, issuer: provider.issuer, jwksUrl: provider.jwksUrl },
    ...{ routes: written.routes, isContinued: (saved?.store.sessions.length ?? 0) > 0, close },
  }
}

function told(line: string, live: LiveLog, { onLogLine }: DevServerOptions): void {
  live.addLogLine(line)
  onLogLine?.(line)
}

function savedState(stateFile: StateFile, issuer: string) {
  const saved = stateFile.read()
  // Another profile or port: none of its tokens would be known.
  return saved?.issuer === issuer ? saved : undefined
}

/** Writes everything down soon after something has changed, and at the end. */
function keepState({
  stateFile,
  provider,
  secrets,
  issuer,
  failed,
}: {
  stateFile: StateFile
  provider: ScriptedProvider
  secrets: ReturnType<typeof newDevSecrets>
  issuer: string
  /** Told once that the file cannot be written, and why. */
  failed: (why: string) => void
}) {
  let store: MemoryStore | undefined
  let isPlanned = false
  let hasFailed = false
  function atOnce(): void {
    isPlanned = false
    if (!store) return
    const state = { issuer, secrets, provider: provider.save(), store: store.contents() }
    try {
      stateFile.write({ version: 1, ...state, savedAt: systemClock.now() })
    } catch (error) {
      // A full disk or a folder without rights is no reason to end.
      if (!hasFailed) failed(describeError(error).message)
      hasFailed = true
    }
  }
  return {
    follow(followed: MemoryStore): MemoryStore {
      store = followed
      return followed
    },
    /** The store is empty once it is closed. */
    atLast(): void {
      atOnce()
      store = undefined
    },
    soon(): void {
      if (isPlanned) return
      isPlanned = true
      systemClock.after(SAVED_AFTER_MS, () => isPlanned && atOnce()).unref()
    },
  }
}

/** One relay for each upstream on this machine; what is elsewhere is called as configured, and no switch reaches it. */
async function startRelays(
  { routes }: Config,
  keep: Opened['keep'],
  answerFor: (path: string, req: IncomingMessage) => ReturnType<Switches['answerFor']>,
): Promise<ReadonlyMap<number, string>> {
  const upstreams = new Map<number, string>()
  for (const [index, { path, upstream, resource }] of routes.entries()) {
    const { origin, host } = new URL(upstream)
    if (!isLoopbackHost(host)) continue
    const relay: LoopbackServer = await startRelay({
      ...{ target: origin, waits: resource === undefined },
      answerFirst: (req) => answerFor(path, req),
    })
    upstreams.set(index, keep(relay).origin)
  }
  return upstreams
}

function apisOf({ routes }: Config, { apis }: DevConfig): DevApi[] {
  return routes
    .filter(({ resource }) => resource !== undefined)
    .map(({ path, resource }) => ({ path, audience: apis.find(({ name }) => name === resource)?.audience }))
}

/**
 * Sends navigations to another name of this machine, such as 127.0.0.1, on to `publicUrl`: the cookies of one are not sent
 * to the other, so that a sign-in would begin here and end there.
 */
function createHostRedirect(publicUrl: string) {
  const { host: publicHost } = new URL(publicUrl)
  return function redirectHost(req: IncomingMessage, res: ServerResponse): boolean {
    const { host = '', accept = '' } = req.headers
    const isNavigation = req.headers['sec-fetch-mode'] === 'navigate' || accept.includes('text/html')
    if (host.toLowerCase() === publicHost || req.method !== 'GET' || !isNavigation) return false
    if (!req.url?.startsWith('/')) return false
    res.writeHead(307, { location: publicUrl + req.url, 'cache-control': 'no-store' }).end()
    return true
  }
}
