import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { createBrowser } from '../browsers/browser.ts'
import type { ConfigData } from '../config/cloakroom-config.ts'
import { type RotatingProvider, startRotatingProvider } from '../provider/rotating-provider.ts'
import { type Replica, startReplica, writeReplicaConfig } from '../replica.ts'
import { eventually } from '../shops/deadline.ts'
import { inMb, openFiles } from './process-readings.ts'

const COLLECT_ON_SIGNAL = new URL('collect-on-signal.ts', import.meta.url).href

/** What is left in a process after all garbage has been collected. Bytes. */
export type Inside = {
  readonly rss: number
  readonly heapUsed: number
  readonly external: number
  readonly arrayBuffers: number
  /** Timers and handles that keep the process alive, by kind. */
  readonly kinds: Readonly<Record<string, number>>
}

/** How much of the system a process holds. */
export type Standing = Inside & { readonly files: number }

/** A Cloakroom in a process of its own, with somebody signed in. */
export type Measured = {
  readonly pid: number
  readonly port: number
  readonly provider: RotatingProvider
  readonly replica: Replica
  /** Head fields of a signed-in script's request: Host, Cookie and the CSRF header. */
  readonly fields: Readonly<Record<string, string>>
  /** Signs somebody else in; gives the head fields of that session. */
  signInAgain(): Promise<Readonly<Record<string, string>>>
  /** Collects all garbage, then tells what is left. */
  inside(): Promise<Inside>
  /** Waits until no more files are open than `base`; resolves with the number. */
  filesBackTo(base: number): Promise<number>
  /** Open files and what is left in memory, now. */
  standing(): Promise<Standing>
  /** Gauges of `/metrics` that count what is under way and are not 0. */
  busyGauges(): Promise<string[]>
  /** Log lines of errors nobody answered for. */
  unexpected(): string[]
}

/** Starts a provider and `cloakroom serve`, and signs somebody in; everything ends with the test. */
export async function startMeasured(
  t: Pick<TestContext, 'after'>,
  overrides: ConfigData,
  { env = {} }: { env?: Record<string, string> } = {},
): Promise<Measured> {
  const provider = await startRotatingProvider({ control: { accessTokenSeconds: 3_600 } })
  t.after(() => provider.close())
  // Every client of these tests comes from one address.
  const limits = { connectionsPerClient: 100_000, ...(overrides.limits as ConfigData | undefined) }
  const config = await writeReplicaConfig({ provider: provider.settings, ...overrides, limits })
  t.after(() => config.remove())
  const replica = await startReplica({
    configFile: config.file,
    env: { NODE_OPTIONS: `--expose-gc --import=${COLLECT_ON_SIGNAL}`, ...env },
  })
  t.after(() => replica.stop('SIGKILL'))

  async function signIn(): Promise<Record<string, string>> {
    const browser = createBrowser({
      origin: config.publicUrl,
      connect: { [config.publicUrl]: replica.listenUrl },
    })
    await browser.signIn()
    const cookie = browser.cookieHeader()
    browser.close()
    return { host: new URL(config.publicUrl).host, cookie, 'x-csrf': '1' }
  }

  return {
    ...{ pid: replica.pid, port: Number(new URL(replica.listenUrl).port), provider, replica },
    fields: await signIn(),
    signInAgain: signIn,
    inside: () => insideOf(replica),
    filesBackTo: (base) => filesBackTo(replica.pid, base),
    standing: async () => ({ files: openFiles(replica.pid), ...(await insideOf(replica)) }),
    busyGauges: () => busyGauges(replica.adminUrl),
    unexpected: () => [...replica.stdout, ...replica.stderr].filter((line) => /unexpected error/.test(line)),
  }
}

/** Collects all garbage, then tells what is left. */
async function insideOf({ stderr, signal }: Replica): Promise<Inside> {
  const seen = stderr.length
  signal('SIGUSR2')
  const line = await eventually('the process tells what is left', () =>
    stderr.slice(seen).find((text) => text.startsWith('{"inside"')),
  )
  return (JSON.parse(line) as { inside: Inside }).inside
}

/** Idle connections to upstreams go by themselves. */
const IDLE_GO_WITHIN_MS = 60_000

async function filesBackTo(pid: number, base: number): Promise<number> {
  let files = Number.NaN
  const isBack = () => {
    files = openFiles(pid)
    return files <= base
  }
  await eventually(`open files back to ${base}`, isBack, { withinMs: IDLE_GO_WITHIN_MS }).catch(
    (error: Error) => {
      throw new Error(`${error.message}; still ${files}`)
    },
  )
  return files
}

async function busyGauges(adminUrl: string): Promise<string[]> {
  const text = await (await fetch(`${adminUrl}/metrics`, { headers: { connection: 'close' } })).text()
  const counts = /^(cloakroom_\w*(?:in_flight|queue|open|active|pending|connections)\w*)(?:\{.*\})? (\S+)$/
  const gauges = [...text.matchAll(/^# TYPE (\S+) gauge$/gm)].map(([, name]) => name)
  return text.split('\n').filter((line) => {
    const [, name, value] = counts.exec(line) ?? []
    return gauges.includes(name) && Number(value) !== 0
  })
}

/** Bytes of heap and of buffers that compiled code and full caches may add to it. */
const MOST_GROWTH = 6_000_000

/** Checks that a process holds no more than before, and that nothing went unanswered; resolves with the figures. */
export async function assertBackAt(before: Standing, measured: Measured): Promise<string> {
  await measured.filesBackTo(before.files)
  let after = await measured.standing()
  const grownBy = () => after.heapUsed + after.external - before.heapUsed - before.external
  // What a busy machine has not let go yet is no leak; what is never let go is one.
  for (let looks = 0; grownBy() >= MOST_GROWTH && looks < 5; looks += 1) {
    await delay(3_000)
    after = await measured.standing()
  }
  const grown = grownBy()
  assert.ok(grown < MOST_GROWTH, `heap and buffers grew by ${inMb(grown)}`)
  assert.deepEqual(measured.unexpected(), [])
  assert.deepEqual(await measured.busyGauges(), [])
  const change = (what: 'heapUsed' | 'external' | 'rss') => `${inMb(before[what])} → ${inMb(after[what])}`
  return `files ${before.files} → ${after.files}; heap ${change('heapUsed')}, external ${change('external')}, RSS ${change('rss')}`
}
