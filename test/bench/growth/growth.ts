import { readFileSync } from 'node:fs'
import { Redis } from 'ioredis'
import { userMaker } from '../../kit/endurance/many-users.ts'
import type { Field } from '../case.ts'
import { openCloakroom, pathOfResource, pathOfRoute } from '../contenders/cloakroom.ts'
import { type Fields, requestText, type Scope } from '../contenders/contender.ts'
import { runWrk } from '../load/wrk.ts'
import { figureOf, type Lane, warmUp } from '../measure.ts'
import { closeAll, openMany, webSocketText } from '../process-cases.ts'
import { cold, steady } from '../request-cases.ts'
import type { Point } from './exponent.ts'

/** How one cost grows with one size. */
export type Growth = { readonly what: string; readonly measures: string; readonly points: readonly Point[] }

const WINDOWS = 3

/** The median of a few windows once the cost has settled. */
async function settledCost(lane: Lane): Promise<number> {
  await warmUp(lane)
  const costs: number[] = []
  for (let n = 0; n < WINDOWS; n += 1) {
    const { total, count } = await lane.window()
    costs.push(total / count)
  }
  return figureOf(costs).median
}

const CPU = 'CPU µs a request'

async function pointsOf(
  sizes: readonly number[],
  costOf: (size: number) => Promise<number>,
): Promise<Point[]> {
  const points: Point[] = []
  for (const size of sizes) points.push({ size, cost: await costOf(size) })
  return points
}

async function routes(field: Field, t: Scope): Promise<Growth[]> {
  const [{ dir } = { dir: '' }] = field.cloakrooms
  const points = await pointsOf([1, 10, 100, 1_000], async (routes) => {
    const one = await openCloakroom(t, field.world, { name: `${routes} routes`, dir, routes })
    const requests = Array.from({ length: routes }, (_, n) =>
      requestText('small', one.fields, pathOfRoute(n)),
    )
    return settledCost(steady(field, one, 'small', { requests, warmUpRequests: 80_000 }))
  })
  return [{ what: 'routes, all used', measures: CPU, points }]
}

async function resources(field: Field, t: Scope): Promise<Growth[]> {
  const [{ dir } = { dir: '' }] = field.cloakrooms
  const cloakroom = await openCloakroom(t, field.world, { name: 'many resources', dir, resources: 20 })
  const points = await pointsOf([1, 5, 20], async (resources) => {
    const sessions = await cloakroom.signIn(100, resources)
    const requests = sessions.map((fields) => requestText('small', fields, pathOfResource(resources - 1)))
    return settledCost(cold(field, { cloakroom, requests, name: '', warmUpRequests: 10_000 }))
  })
  return [{ what: 'resources with a token in the session, session not in the copies', measures: CPU, points }]
}

async function headers(field: Field): Promise<Growth[]> {
  const one = field.cloakrooms[0]!
  const bare = requestText('small', one.fields).length
  const points = await pointsOf([1_000, 2_000, 4_000, 8_000, 12_000], (size) => {
    const requests = [requestText('small', { ...one.fields, ...padding(size - bare) })]
    return settledCost(steady(field, one, 'small', { requests }))
  })
  return [{ what: 'bytes of request header', measures: CPU, points }]
}

/** So many bytes in several fields, because nginx takes no field of more than 8 KiB. */
function padding(bytes: number): Record<string, string> {
  const each = 2_000
  const count = Math.max(1, Math.ceil(bytes / each))
  const names = Array.from({ length: count }, (_, n) => `X-Padding-${n}`)
  return Object.fromEntries(
    names.map((name) => [name, 'x'.repeat(Math.max(1, Math.min(each, bytes / count)))]),
  )
}

/** What a request costs while so many of something are open beside it. */
async function besideOpen(
  field: Field,
  { sizes, text }: { sizes: number[]; text: string },
): Promise<Point[]> {
  const one = field.cloakrooms[0]!
  const open = [] as Awaited<ReturnType<typeof openMany>>
  const points = await pointsOf(sizes, async (size) => {
    open.push(...(await openMany(one.port, text, size - open.length)))
    return settledCost(steady(field, one, 'small'))
  })
  closeAll(open)
  return points
}

async function connections(field: Field): Promise<Growth[]> {
  const text = requestText('small', field.cloakrooms[0]!.fields)
  const points = await besideOpen(field, { text, sizes: [10, 100, 1_000, 5_000] })
  return [{ what: 'idle keep-alive connections beside it', measures: CPU, points }]
}

async function webSockets(field: Field): Promise<Growth[]> {
  const text = webSocketText(field.cloakrooms[0]!.fields)
  const points = await besideOpen(field, { text, sizes: [10, 100, 1_000] })
  return [{ what: 'open WebSockets beside it', measures: CPU, points }]
}

const BATCH = 500

/** Requests of sessions among ever more in Redis: what a sign-in would have left is written there, sealed by the same code. */
async function sessions(field: Field, t: Scope): Promise<Growth[]> {
  const cloakroom = field.cloakrooms[0]!
  const store = new Redis(field.world.redis.url)
  t.after(() => store.disconnect())
  const make = userMaker(readFileSync(cloakroom.configFile, 'utf8'), 1_000)
  const all: { hash: string; fields: Fields }[] = []
  async function seed(size: number): Promise<void> {
    while (all.length < size) {
      const pipeline = store.pipeline()
      for (let n = 0; n < BATCH && all.length < size; n += 1) {
        const { hash, session, tokens, cookie } = make(all.length)
        pipeline.set(`${cloakroom.keyPrefix}:{${hash}}:session`, session, 'PX', 3_600_000)
        pipeline.hset(`${cloakroom.keyPrefix}:{${hash}}:tokens`, tokens)
        all.push({ hash, fields: { ...cloakroom.fields, cookie } })
      }
      await pipeline.exec()
    }
  }
  const rows: [Growth, Growth] = [
    { what: 'sessions in Redis, those asked with in the copies', measures: CPU, points: [] },
    { what: 'sessions in Redis, those asked with not in the copies', measures: CPU, points: [] },
  ]
  const points: [Point[], Point[]] = [[], []]
  for (const size of [100, 1_000, 10_000, 100_000]) {
    await seed(size)
    // Spread over all of them, and as many of each size.
    const some = Array.from({ length: 100 }, (_, n) => all[Math.floor((n * size) / 100)]!)
    const requests = some.map(({ fields }) => requestText('small', fields))
    points[0].push({ size, cost: await settledCost(steady(field, cloakroom, 'small', { requests })) })
    const hashes = some.map(({ hash }) => hash)
    points[1].push({
      size,
      cost: await settledCost(cold(field, { cloakroom, requests, hashes, name: '', warmUpRequests: 3_000 })),
    })
  }
  return rows.map((row, n) => ({ ...row, points: points[n]! }))
}

const PROVIDER_LATENCY_MS = 50
const STORMING_CONNECTIONS = 256

/** Sessions that all need a new access token at the same time, beside a user who needs none. */
async function storms(field: Field, t: Scope): Promise<Growth[]> {
  const [{ dir } = { dir: '' }] = field.cloakrooms
  // Of two resources, the second one needs a refresh: the token of the sign-in is for none of them.
  const cloakroom = await openCloakroom(t, field.world, { name: 'storms', dir, resources: 2 })
  const { control, counters } = field.world.provider
  const p99: Point[] = []
  const inFlight: Point[] = []
  const drain = await pointsOf([100, 1_000, 10_000], async (count) => {
    control.latencyMs = 0
    const sessions = await cloakroom.signIn(count, 0)
    control.latencyMs = PROVIDER_LATENCY_MS
    counters.mostConcurrentRefreshes = 0
    const requests = sessions.map((fields) => requestText('small', fields, pathOfResource(1)))
    const seconds = Math.max(1, Math.floor((count * PROVIDER_LATENCY_MS) / 32 / 1_000))
    const [{ elapsedMs }, bystander] = await Promise.all([
      field.load.run({
        port: cloakroom.port,
        requests,
        count,
        connections: Math.min(count, STORMING_CONNECTIONS),
      }),
      runWrk({
        ...{ port: cloakroom.port, requests: [requestText('small', cloakroom.fields)] },
        ...{ connections: 4, seconds },
      }),
    ])
    p99.push({ size: count, cost: bystander.p99Us / 1_000 })
    inFlight.push({ size: count, cost: counters.mostConcurrentRefreshes })
    return elapsedMs / 1_000
  })
  control.latencyMs = 0
  const what = `sessions whose tokens are refreshed at once, ${PROVIDER_LATENCY_MS} ms each`
  return [
    { what, measures: 's until all are served', points: drain },
    { what, measures: 'calls in flight at most', points: inFlight },
    { what, measures: 'ms, p99 of another user’s requests meanwhile', points: p99 },
  ]
}

/** What may grow, by the name on the command line. The field's processes have been warmed up. */
export const GROWTHS: Readonly<Record<string, (field: Field, t: Scope) => Promise<Growth[]>>> = {
  ...{ sessions, routes, resources, headers, connections, websockets: webSockets, storms },
}
