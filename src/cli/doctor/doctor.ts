import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { systemClock } from '../../async/clock.ts'
import { within } from '../../async/deadline.ts'
import type { Config } from '../../config/config.ts'
import type { LoadedConfig } from '../../config/load.ts'
import { type CommandIo, usageError } from '../command.ts'
import { configFileName, EXIT_BAD_CONFIG, loadOrReport } from '../config/config-file.ts'
import { createGroup, type Finding } from './finding.ts'
import { checkProvider } from './provider.ts'
import { createProviderClient } from './provider-client.ts'
import { inJson, inWords } from './report.ts'
import { checkResources } from './resources.ts'
import { checkSessionStore } from './session-store.ts'
import { checkRunning, checkSettings } from './settings.ts'
import { checkUpstreams } from './upstreams.ts'

const USAGE = `usage: cloakroom doctor [--config FILE] [--json] [--refresh-token-file FILE]

Tries what the configuration names: provider, client, redirect URIs, Redis, upstreams, certificates, clocks. A line each with ok, warn or FAIL and the cure, within 30 seconds. Of the provider it asks what a sign-in asks without a user; in Redis it touches keys of random names under the prefix only; upstreams get a connection and no request. Exit code 0; 1 with any FAIL; 78 for a bad config.

  --config FILE                default: $CLOAKROOM_CONFIG, else config/cloakroom.yaml
  --json                       one JSON object: ok, findings with group, check, level, message, cure
  --refresh-token-file FILE    also one real refresh for each resource, with the refresh token in this file. It is USED UP and what comes of it is revoked: take one of a test user, signed in for this, never one of a session that somebody uses
`

/** All checks together end within this time, also when every peer hangs. */
const WHOLE_MS = 25_000
/** No single answer is waited for longer, whatever the configuration allows. */
const ANSWER_MS = 8_000

/** The same configuration with less patience. */
function hurried(config: Config): Config {
  const { provider, routes } = config
  return {
    ...config,
    provider: { ...provider, timeoutMs: Math.min(provider.timeoutMs, ANSWER_MS) },
    routes: routes.map((route) => ({
      ...route,
      timeout: { ...route.timeout, connectMs: Math.min(route.timeout.connectMs, ANSWER_MS) },
    })),
  }
}

/** Runs the live checks; resolves with 0, 1 with any FAIL or wrong arguments, 78 for a bad config. */
export async function doctorCommand(
  args: string[],
  io: CommandIo,
  { wholeMs = WHOLE_MS }: { readonly wholeMs?: number } = {},
): Promise<number> {
  const options = readOptions(args, io)
  if (typeof options === 'number') return options
  const file = configFileName(options.config, io.env)
  const loaded = loadOrReport(file, io)
  if (!loaded) return EXIT_BAD_CONFIG
  const { refreshToken } = options
  if (refreshToken !== undefined) {
    io.stderr.write(
      'cloakroom doctor: the refresh token is used up now, and what comes of it is revoked at the end. The file stays as it is, and is worth nothing afterwards\n',
    )
  }
  const findings = await findingsOf(loaded, { io, refreshToken, wholeMs })
  io.stdout.write(options.json ? inJson({ file, findings }) : inWords({ file, findings }))
  return findings.some(({ level }) => level === 'fail') ? 1 : 0
}

type Options = {
  readonly config?: string | undefined
  readonly json: boolean
  readonly refreshToken?: string
}

/** The options, or the exit code for wrong ones. */
function readOptions(args: string[], io: CommandIo): Options | number {
  try {
    const text = { type: 'string' } as const
    const { values } = parseArgs({
      args,
      options: {
        ...{ config: text, 'refresh-token-file': text, json: { type: 'boolean' } },
        help: { type: 'boolean', short: 'h' },
      },
    })
    const { help, json = false, config, 'refresh-token-file': file } = values
    if (help) {
      io.stdout.write(USAGE)
      return 0
    }
    return { config, json, ...(file === undefined ? {} : { refreshToken: tokenIn(file) }) }
  } catch (error) {
    return usageError({ error, usage: USAGE }, io)
  }
}

/** @throws a plain Error without the content. */
function tokenIn(file: string): string {
  const shown = JSON.stringify(file)
  let text: string
  try {
    text = readFileSync(file, 'utf8').trim()
  } catch (error) {
    throw new Error(`the refresh token file ${shown} cannot be read (${(error as { code?: string }).code})`)
  }
  // RFC 6749 appendix A.17.
  if (!/^[\x20-\x7e]+$/.test(text))
    throw new Error(`the file ${shown} must hold one refresh token and nothing else`)
  return text
}

type Examination = {
  readonly io: CommandIo
  readonly refreshToken: string | undefined
  readonly wholeMs: number
}

/** Everything at the same time, but for what needs the provider's endpoints. */
async function findingsOf(
  loaded: LoadedConfig,
  { io, refreshToken, wholeMs }: Examination,
): Promise<Finding[]> {
  const config = hurried(loaded.config)
  const { now } = systemClock
  const settings = createGroup('settings')
  const provider = createGroup('provider')
  const resources = createGroup('resources')
  const store = createGroup('session store')
  const upstreams = createGroup('upstreams')
  const running = createGroup('running')
  async function askProvider(): Promise<void> {
    const client = createProviderClient(config)
    const isKnown = await checkProvider(provider, { config, client, now })
    if (isKnown) await checkResources(resources, { config, client, refreshToken })
  }
  const all = Promise.all([
    checkSettings(settings, { loaded, io, now }),
    askProvider(),
    checkSessionStore(store, { config, now }),
    checkUpstreams(upstreams, { config, now }),
    checkRunning(running, { config, now }),
  ])
  await within<unknown, undefined>(all, wholeMs, { late: () => undefined })
  return [settings, provider, resources, store, upstreams, running].flatMap((group) => group.close())
}
