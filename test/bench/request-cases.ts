import type { Case, Field } from './case.ts'
import { startBare } from './contenders/bare.ts'
import { type Cloakroom, openCloakroom, pathOfResource, pathOfRoute } from './contenders/cloakroom.ts'
import { type Ask, type Contender, type Fresh, requestText } from './contenders/contender.ts'
import { runWrk } from './load/wrk.ts'
import type { Lane } from './measure.ts'
import { familyCpuTimeUs } from './process/cpu-time.ts'

const CONNECTIONS = 64
/** Requests after which the cost of a fresh Node process no longer falls, at 64 connections. */
export const SETTLES_AFTER = 80_000
/** In a process that has settled, only the code of the case itself is new. */
const CASE_SETTLES_AFTER = 10_000

/** Lanes that warm a field up: after them every process has settled. */
export function warmUpLanes(field: Field): Lane[] {
  return contenders(field).map((one) => steady(field, one, 'small', { warmUpRequests: SETTLES_AFTER }))
}

const contenders = ({ bare, cloakrooms, peers }: Field): Contender[] => [bare, ...cloakrooms, ...peers]

/** A lane of wrk, which sends as fast as answers come, for some seconds. */
export function steady(
  { seconds }: Field,
  { name, pid, port, fields }: Contender,
  ask: Ask,
  { requests = [requestText(ask, fields)], expectRefusals = false, warmUpRequests = CASE_SETTLES_AFTER } = {},
): Lane {
  return {
    ...{ name, warmUpRequests },
    async window() {
      const before = familyCpuTimeUs(pid)
      const result = await runWrk({ port, requests, connections: CONNECTIONS, seconds, expectRefusals })
      return { total: familyCpuTimeUs(pid) - before, count: result.requests }
    },
  }
}

const allAsk = (ask: Ask) => async (field: Field) => contenders(field).map((one) => steady(field, one, ask))

/** Cloakroom's signed-in GET, for what is compared with it. */
const hot = (field: Field): Lane => ({
  ...steady(field, field.cloakrooms[0]!, 'small'),
  name: 'signed-in GET of 800 B, settled',
})

/** Sessions that are asked with once each. */
export type ColdSessions = {
  readonly name: string
  readonly cloakroom: Cloakroom
  readonly requests: readonly string[]
  /** Their hashes; all that there are unless given. */
  readonly hashes?: readonly string[]
  readonly warmUpRequests?: number
}

/** Each session once, when the process has just lost its copies of all; so often that a window has enough requests. */
export function cold({ load }: Field, { cloakroom, requests, hashes, ...rest }: ColdSessions): Lane {
  const { pid, port } = cloakroom
  return {
    ...{ warmUpRequests: 5_000, ...rest },
    async window() {
      const window = { total: 0, count: 0 }
      while (window.count < 2_500) {
        await cloakroom.dropCopies(hashes)
        const before = familyCpuTimeUs(pid)
        await load.run({ port, requests, count: requests.length, connections: 16 })
        window.total += familyCpuTimeUs(pid) - before
        window.count += requests.length
      }
      return window
    },
  }
}

/**
 * A lane of wrk whose sessions are all in the copies when a window begins. A copy is trusted for 5 s, and the windows of the
 * other lanes may take longer: then the number of reads in a window would depend on the speed of the machine.
 */
function copied(field: Field, cloakroom: Cloakroom, requests: readonly string[]): Lane {
  const lane = steady(field, cloakroom, 'small', { requests: [...requests] })
  const readAll = { port: cloakroom.port, requests, count: requests.length, connections: 16 }
  return {
    ...lane,
    async window() {
      await field.load.run(readAll)
      return lane.window()
    },
  }
}

const FRESH_REQUESTS = 2_000

type Startable = Pick<Contender, 'name' | 'fields'> & { start(): Promise<Fresh> }

/** The first requests of a new process, its connections included. */
function fresh({ load }: Field, { name, fields, start }: Startable): Lane {
  return {
    ...{ name, warmUpRequests: 0 },
    async window() {
      const { pid, port, stop } = await start()
      const before = familyCpuTimeUs(pid)
      const requests = [requestText('small', fields)]
      await load.run({ port, requests, count: FRESH_REQUESTS, connections: CONNECTIONS })
      const total = familyCpuTimeUs(pid) - before
      await stop()
      return { total, count: FRESH_REQUESTS }
    },
  }
}

const COLD_SESSIONS = 500
const MANY_SESSIONS = 2_000
const RESOURCES = 20
const ROUTES = 1_000
const BARE = 'bare proxies'
const HOT = 'a settled signed-in GET'

/** What requests cost, by the name on the command line. */
export const REQUEST_CASES = {
  small: { title: 'GET, 800 B', budget: 1.3, unit: BARE, lanes: allAsk('small') },
  get64k: { title: 'GET, 64 KiB', budget: 1.25, unit: BARE, lanes: allAsk('large') },
  post16k: { title: 'POST of 16 KiB', budget: 1.2, unit: BARE, lanes: allAsk('upload') },
  unauthorized: {
    title: '401 without a session',
    ...{ budget: 0.5, unit: HOT },
    async lanes(field) {
      const guarded = [...field.cloakrooms, ...field.peers].filter(({ isOpen }) => !isOpen)
      const strangers = guarded.map((one) => {
        const { cookie: _, ...fields } = one.fields
        return steady(field, one, 'small', { requests: [requestText('small', fields)], expectRefusals: true })
      })
      return [hot(field), ...strangers]
    },
  },
  fresh: {
    title: `first ${FRESH_REQUESTS.toLocaleString('en')} requests of a process`,
    ...{ budget: 2, unit: HOT },
    async lanes(field) {
      const { name, fields } = field.bare
      // Shows the part of Node.js itself: its functions are as cold as ours.
      const bare = { name: `${name}, new`, fields, start: () => startBare(field, {}) }
      const ours = field.cloakrooms.map((one) => ({
        ...one,
        start: () => one.startAnother({ NODE_COMPILE_CACHE: one.compileCache() }),
      }))
      return [hot(field), ...[bare, ...ours].map((one) => fresh(field, one))]
    },
  },
  cold: {
    title: 'GET, session not in the copies',
    ...{ budget: 2, unit: HOT },
    async lanes(field) {
      const lanes: Lane[] = []
      for (const cloakroom of field.cloakrooms) {
        const sessions = await cloakroom.signIn(COLD_SESSIONS)
        const requests = sessions.map((fields) => requestText('small', fields))
        lanes.push(cold(field, { cloakroom, requests, name: cloakroom.name }))
      }
      return [hot(field), ...lanes]
    },
  },
  resources: {
    title: `the same, session with tokens of ${RESOURCES} resources`,
    ...{ budget: 1.1, unit: 'a session with one' },
    async lanes(field, t) {
      const lanes: Lane[] = []
      for (const { dir, name } of field.cloakrooms) {
        const setup = { name: `${name}, ${RESOURCES} resources`, dir, resources: RESOURCES }
        const cloakroom = await openCloakroom(t, field.world, setup)
        for (const resources of [1, RESOURCES]) {
          const sessions = await cloakroom.signIn(100, resources)
          const requests = sessions.map((fields) =>
            requestText('small', fields, pathOfResource(resources - 1)),
          )
          const label = resources === 1 ? '1 resource' : `${resources} resources`
          lanes.push({
            ...cold(field, { cloakroom, requests, name: `${name}, ${label}` }),
            warmUpRequests: 10_000,
          })
        }
      }
      return lanes
    },
  },
  sessions: {
    title: `GET, ${MANY_SESSIONS.toLocaleString('en')} sessions in turn, all in the copies`,
    ...{ budget: 1.1, unit: HOT },
    async lanes(field) {
      const lanes: Lane[] = []
      for (const cloakroom of field.cloakrooms) {
        const sessions = await cloakroom.signIn(MANY_SESSIONS)
        const requests = sessions.map((fields) => requestText('small', fields))
        lanes.push(copied(field, cloakroom, requests))
      }
      return [hot(field), ...lanes]
    },
  },
  routes: {
    title: `GET, ${ROUTES.toLocaleString('en')} routes in turn`,
    ...{ budget: 1.1, unit: HOT },
    async lanes(field, t) {
      const lanes: Lane[] = []
      for (const { dir, name } of field.cloakrooms) {
        const cloakroom = await openCloakroom(t, field.world, {
          name: `${name}, routes`,
          dir,
          routes: ROUTES,
        })
        const numbers = Array.from({ length: ROUTES }, (_, n) => n)
        const requests = numbers.map((n) => requestText('small', cloakroom.fields, pathOfRoute(n)))
        const options = { requests, warmUpRequests: SETTLES_AFTER }
        lanes.push({ ...steady(field, cloakroom, 'small', options), name })
      }
      return [hot(field), ...lanes]
    },
  },
} as const satisfies Record<string, Case>
