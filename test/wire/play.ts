import type { TestContext } from 'node:test'
import { compileRoutes } from '../../src/proxy/route-table.ts'
import { startCloakroom } from '../kit/cloakroom.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { HOST, type HostileRequest } from './hostile-bytes.ts'
import { exchangeBytes } from './raw-client.ts'
import { type Sighting, startWitnesses, type Understood, type Witness } from './witnesses.ts'

/** What became of one hostile request at one server. */
export type Played = {
  /** Statuses of what the client received, the canary's too. */
  readonly statuses: number[]
  /** What the server understood, but for canaries. */
  readonly sightings: Sighting[]
  /** The normal requests that followed, as the server understood them. */
  readonly canaries: Sighting[]
}

/** All of them at one server, in order. */
export type PlayedAt = { readonly name: string; readonly version: string; readonly results: Played[] }

/** Some servers wait for the rest of what another one refuses at once. */
const QUIET_MS = 300

const ORDERS = 'https://orders.test'

/** Sends each request through one Cloakroom for each server, signed in where it says so. */
export async function playThroughCloakroom(t: TestContext, rows: readonly HostileRequest[]) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const witnesses = await startWitnesses(t)
  const sides = await Promise.all(witnesses.map((witness) => startSide(t, witness, provider)))
  const runs = await Promise.all(
    sides.map(({ witness, port, cookie }) => play({ port, cookie, rows, count: witness.count })),
  )
  await Promise.all(sides.map(({ close }) => close()))
  const tokens = new Set(provider.issuedSecrets)
  const reports = await Promise.all(
    sides.map(async ({ witness }, at) =>
      report(witness, runs[at]!, (seen) => withoutSide(seen, witness.port, tokens)),
    ),
  )
  const match = compileRoutes(sides[0]!.routes)
  return {
    played: reports,
    refused: reports.flatMap(({ name, refused }) => refused.map((line) => `${name}: ${line}`)),
    /** The target that Cloakroom makes of one; undefined when no route has it. */
    expected: (method: string, target: string) => match(method, target)?.target,
  }
}

/** Sends each request to each server itself. */
export async function playDirectly(t: TestContext, rows: readonly HostileRequest[]): Promise<PlayedAt[]> {
  const witnesses = await startWitnesses(t)
  const runs = await Promise.all(
    witnesses.map(({ port, count }) => play({ port, cookie: 'a=1', rows, count, quietMs: QUIET_MS })),
  )
  return Promise.all(witnesses.map((witness, at) => report(witness, runs[at]!, (seen) => seen)))
}

async function startSide(
  t: TestContext,
  witness: Witness,
  provider: Awaited<ReturnType<typeof startRotatingProvider>>,
) {
  const upstream = `http://127.0.0.1:${witness.port}`
  const open = { upstream, auth: 'anonymous' }
  const cloakroom = await startCloakroom({
    publicUrl: `https://${HOST}`,
    provider: { ...provider.settings },
    resources: { orders: { resource: ORDERS, audience: ORDERS } },
    routes: [
      { path: '/api', upstream, resource: 'orders', headers: { 'x-user-id': '{claims.sub}' } },
      { ...open, path: '/rewritten', rewrite: '/v1' },
      { ...open, path: '/small', maxBody: '16B' },
      { ...open, path: '/', headers: { 'x-user-id': 'nobody' } },
    ],
  })
  t.after(() => cloakroom.close())
  const browser = cloakroom.browser()
  await browser.signIn({ returnUrl: '/signed-in' })
  return {
    witness,
    port: Number(new URL(cloakroom.listenUrl).port),
    cookie: browser.cookieHeader(),
    routes: cloakroom.config.routes,
    close: cloakroom.close,
  }
}

type Run = {
  readonly port: number
  readonly cookie: string
  readonly rows: readonly HostileRequest[]
  /** Requests that the server has understood so far. */
  readonly count: () => number
  /** How long to wait for a server that says nothing; Cloakroom must not be one. Milliseconds. */
  readonly quietMs?: number
}

/** What the server had understood before and after each request, and what the client got. */
async function play({ port, cookie, rows, count, quietMs }: Run) {
  const results: { statuses: number[]; from: number; to: number }[] = []
  for (const [at, row] of rows.entries()) {
    const from = count()
    const bytes = row.bytes
      .replaceAll('{id}', `r${String(at).padStart(3, '0')}`)
      .replaceAll('{cookie}', cookie)
    // What follows in the same write shows best whether both sides agree where the request ends.
    const { leaves } = row
    const { statuses } = await exchangeBytes(port, leaves ? bytes : bytes + canary(`${at}`), {
      leaves,
      quietMs,
    })
    // The connection may have ended before the canary was read. Once this one is answered, all before it are over.
    await exchangeBytes(port, canary(`${at}/again`))
    results.push({ statuses, from, to: count() })
  }
  return results
}

function canary(name: string): string {
  return `GET /canary/${name} HTTP/1.1\r\nHost: ${HOST}\r\nX-Request-Id: canary-${name}\r\nConnection: close\r\n\r\n`
}

async function report(
  witness: Witness,
  run: Awaited<ReturnType<typeof play>>,
  tidy: (understood: Understood) => Understood,
): Promise<PlayedAt & { refused: string[] }> {
  const { sightings, refused } = await witness.stop()
  const results = run.map(({ statuses, from, to }, at) => {
    const here = sightings.slice(from, to).map((one) => tidied(one, tidy))
    const isCanary = ({ passedOn }: Sighting) => passedOn.target.startsWith(`/canary/${at}`)
    const canaries = here.filter(isCanary)
    return { statuses, sightings: here.filter((one) => !isCanary(one)), canaries }
  })
  return { name: witness.name, version: witness.version, results, refused }
}

/** Both views of one sighting, with what differs from server to server by design told apart from what must not. */
function tidied({ id, passedOn, read }: Sighting, tidy: (understood: Understood) => Understood): Sighting {
  if (!read) return { id, passedOn: tidy(passedOn) }
  const { body: _, ...said } = tidy({ ...read, body: '' })
  return { id, passedOn: tidy(passedOn), read: said }
}

/** Each server has an address of its own, and each session a token of its own. */
function withoutSide(understood: Understood, port: number, tokens: ReadonlySet<string>): Understood {
  const { authorization, ...fields } = understood.fields
  const token = authorization?.replace(/^Bearer /, '')
  const isOurs = token !== undefined && tokens.has(token)
  return {
    ...understood,
    host: understood.host === `127.0.0.1:${port}` ? 'the upstream' : understood.host,
    fields:
      authorization === undefined ? fields : { ...fields, authorization: isOurs ? 'ours' : authorization },
  }
}
