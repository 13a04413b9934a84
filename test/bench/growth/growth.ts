import type { Field } from '../case.ts'
import { openCloakroom, pathOfResource, pathOfRoute } from '../contenders/cloakroom.ts'
import { requestText, type Scope } from '../contenders/contender.ts'
import { warmUp } from '../measure.ts'
import { cold, SETTLES_AFTER, steady } from '../request-cases.ts'
import { connections, webSockets } from './beside-open.ts'
import type { Point } from './exponent.ts'
import { CPU, type Growth, type Measure, pointsOf, settledCost } from './points.ts'
import { type Seeded, sessionSeeder } from './seed.ts'
import { storms } from './storm.ts'

async function routes(field: Field, t: Scope, sizes: readonly number[]): Promise<Growth[]> {
  const [{ dir } = { dir: '' }] = field.cloakrooms
  const points = await pointsOf(sizes, async (routes) => {
    const one = await openCloakroom(t, field.world, { name: `${routes} routes`, dir, routes })
    const requests = Array.from({ length: routes }, (_, n) =>
      requestText('small', one.fields, pathOfRoute(n)),
    )
    return settledCost(steady(field, one, 'small', { requests, warmUpRequests: SETTLES_AFTER }))
  })
  return [{ what: 'routes, all used', measures: CPU, points }]
}

async function resources(field: Field, t: Scope, sizes: readonly number[]): Promise<Growth[]> {
  const [{ dir } = { dir: '' }] = field.cloakrooms
  const cloakroom = await openCloakroom(t, field.world, {
    name: 'many resources',
    dir,
    resources: Math.max(...sizes),
  })
  const points = await pointsOf(sizes, async (resources) => {
    const sessions = await cloakroom.signIn(100, resources)
    const requests = sessions.map((fields) => requestText('small', fields, pathOfResource(resources - 1)))
    return settledCost(cold(field, { cloakroom, requests, name: '', warmUpRequests: 10_000 }))
  })
  return [{ what: 'resources with a token in the session, session not in the copies', measures: CPU, points }]
}

async function headers(field: Field, _: Scope, sizes: readonly number[]): Promise<Growth[]> {
  const one = field.cloakrooms[0]!
  await warmUp(steady(field, one, 'small', { warmUpRequests: SETTLES_AFTER }))
  const bare = requestText('small', one.fields).length
  const points = await pointsOf(sizes, (size) => {
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

/** Requests of sessions among ever more in Redis. */
async function sessions(field: Field, t: Scope, sizes: readonly number[]): Promise<Growth[]> {
  const cloakroom = field.cloakrooms[0]!
  await warmUp(steady(field, cloakroom, 'small', { warmUpRequests: SETTLES_AFTER }))
  const seed = sessionSeeder(t, field.world, cloakroom)
  const all: Seeded[] = []
  const rows: [Growth, Growth] = [
    { what: 'sessions in Redis, those asked with in the copies', measures: CPU, points: [] },
    { what: 'sessions in Redis, those asked with not in the copies', measures: CPU, points: [] },
  ]
  const points: [Point[], Point[]] = [[], []]
  for (const size of sizes) {
    all.push(...(await seed(size - all.length)))
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

/** What may grow, by the name on the command line. Each warms up the process that it measures. */
export const GROWTHS: Readonly<Record<string, Measure>> = {
  sessions: { sizes: [100, 1_000, 10_000, 100_000], rows: sessions },
  routes: { sizes: [1, 10, 100, 1_000], rows: routes },
  resources: { sizes: [1, 5, 20], rows: resources },
  headers: { sizes: [1_000, 2_000, 4_000, 8_000, 12_000], rows: headers },
  connections: { sizes: [100, 1_000, 10_000], rows: connections },
  websockets: { sizes: [100, 1_000, 5_000], rows: webSockets },
  storms: { sizes: [100, 1_000, 10_000], rows: storms },
}
