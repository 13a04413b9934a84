import { inTime, openRawClient, type RawClient, type Received } from './raw-kit.ts'
import type { Connection, SeenRequest } from './recording-upstream.ts'
import { HOST, type Outcome, type Step, type WireCase } from './wire-case.ts'
import type { World } from './world.ts'

/** What came of one case. */
export type Observation = {
  readonly sent: string
  readonly received: Received
  readonly connection: 'open' | 'closed'
  readonly wasReset: boolean
  /** What reached the upstream for this case, whole. */
  readonly requests: readonly SeenRequest[]
  /** Bytes of requests that never became whole. */
  readonly abandoned: readonly string[]
  /** What the upstream received through a tunnel. */
  readonly tunnel: string
  readonly isUpstreamReused: boolean
  /** Of the requests after it that every user depends on. */
  readonly broken: readonly string[]
}

/** Plays cases one after the other: the bytes of each upstream connection then belong to one case. */
export type RunCase = (one: WireCase) => Promise<Observation>

/**
 * Makes the player. After each case a request on the same connection, if it is still open, and one on a new connection
 * must get their own answers. They are also the barrier: when both are answered, whatever Cloakroom made of the case has
 * reached the upstream, which lives in this process and has then read it.
 */
export function createRunner(world: World): RunCase {
  const { upstream, port } = world
  let probes = 0
  const told = new Set<Connection>()

  async function run(one: WireCase): Promise<Observation> {
    const steps = typeof one.send === 'string' ? [one.send] : one.send
    const methods = methodsOf(one, steps)
    const client = openRawClient(port, () => methods)
    const since = upstream.requests.length
    const mark = upstream.mark()
    upstream.scripts.clear()
    if (one.script) upstream.scripts.set(...one.script)
    const broken: string[] = []
    try {
      for (const step of steps) await play(step, client, { since, mark })
      const connection = await settle(one, client, methods, broken)
      const served = upstream.connections.at(upstream.requests[since]?.connection ?? -1)
      const fresh = await probe(broken)
      const own = upstream.requests
        .slice(since)
        .filter(({ startLine }) => !startLine.includes('/api/public/probe-'))
      return {
        sent: steps.filter((step) => typeof step === 'string').join(''),
        received: withoutProbe(client.received(), broken),
        ...{ connection, wasReset: client.wasReset(), requests: own, broken },
        ...(await leftOvers()),
        isUpstreamReused: served !== undefined && !served.isClosed && fresh === served,
      }
    } finally {
      if (!client.isClosed()) client.leave('reset')
    }
  }

  async function play(step: Step, client: RawClient, { since, mark }: Beginning): Promise<void> {
    if (typeof step === 'string') client.write(step)
    else if ('until' in step) {
      const is = () => client.text().includes(step.until)
      await inTime(client.until(is), () => `${JSON.stringify(step.until)} in ${show(client)}`)
    } else if ('seen' in step) {
      await inTime(upstream.seen(step.seen, mark), () => `the upstream to see ${JSON.stringify(step.seen)}`)
    } else if ('leave' in step) client.leave(step.leave)
    else {
      const { socket, closed } = busiest(since)
      if ('upstreamClosed' in step) await inTime(closed, () => "the end of the upstream's connection")
      else if ('upstream' in step) socket.write(step.upstream, 'latin1')
      else if (step.upstreamLeaves === 'end') socket.end()
      else socket.resetAndDestroy()
    }
  }

  /** The upstream's connection of the case under way. */
  function busiest(since: number): Connection {
    const request = upstream.requests[since]
    const connection =
      request === undefined
        ? upstream.connections.findLast(({ received, at }) => received.length > at)
        : upstream.connections[request.connection]
    if (!connection) throw new Error('nothing has reached the upstream')
    return connection
  }

  /** Waits until all is said on the client's connection; uses it again if it can be used. */
  async function settle(one: WireCase, client: RawClient, methods: string[], broken: string[]) {
    const outcome: Outcome = Array.isArray(one.expect) ? one.expect[0] : one.expect
    const count = outcome.answers.length
    const isSaid = () => count > 0 && client.received().answers.filter(isFinal).length >= count
    await inTime(client.until(isSaid), () => `${count} answers; came: ${show(client)}`)
    const last = client.received().answers.at(-1)
    if (client.isClosed()) return 'closed'
    if (last && (last.status === 101 || fieldOf(last, 'connection') === 'close')) {
      await inTime(client.closed, () => `the end of the connection after ${show(client)}`)
      return 'closed'
    }
    probes += 1
    const target = `/api/public/probe-same-${probes}`
    methods[client.received().answers.length] = 'GET'
    client.write(`GET ${target} HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`)
    await inTime(client.closed, () => `the answer to a request on the same connection; came: ${show(client)}`)
    const answer = client.received().answers.at(-1)
    if (answer?.body.includes(`"target":"${target}"`)) return 'open'
    if ((client.received().answers.length ?? 0) > count)
      broken.push('the same connection: another answer than its own')
    return 'closed'
  }

  /** A request of another client; gives the upstream's connection that served it. */
  async function probe(broken: string[]): Promise<Connection | undefined> {
    probes += 1
    const target = `/api/public/probe-new-${probes}`
    const client = openRawClient(port, () => ['GET'])
    client.write(`GET ${target} HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`)
    await inTime(client.closed, () => `the answer to a request on a new connection; came: ${show(client)}`)
    const { answers, rest } = client.received()
    const isOwn = answers.length === 1 && answers[0]?.body.includes(`"target":"${target}"`)
    if (!isOwn || rest !== '') broken.push(`a new connection: ${JSON.stringify(client.text().slice(0, 200))}`)
    const request = upstream.requests.findLast(({ startLine }) => startLine.includes(target))
    return request && upstream.connections[request.connection]
  }

  async function leftOvers(): Promise<{ abandoned: string[]; tunnel: string }> {
    const abandoned: string[] = []
    let tunnel = ''
    for (const connection of upstream.connections) {
      const rest = connection.received.slice(connection.at)
      if (rest === '' || told.has(connection)) continue
      told.add(connection)
      if (connection.isTunnel) tunnel += rest
      else {
        abandoned.push(rest)
        await inTime(
          connection.closed,
          () => `the end of a connection with half a request: ${rest.slice(0, 80)}`,
        )
      }
    }
    return { abandoned, tunnel }
  }

  return run
}

/** Where what belongs to a case begins. */
type Beginning = { readonly since: number; readonly mark: readonly number[] }

function methodsOf(one: WireCase, steps: readonly Step[]): string[] {
  const first = steps.find((step) => typeof step === 'string') ?? ''
  return [...(one.methods ?? [/^[A-Z-]+/.exec(first as string)?.[0] ?? ''])]
}

function isFinal({ status, isWhole }: { status: number; isWhole: boolean }): boolean {
  return status === 101 || isWhole
}

function fieldOf({ fields }: Received['answers'][number], name: string): string | undefined {
  return fields.find(([one]) => one.toLowerCase() === name)?.[1].toLowerCase()
}

/** The case's own answers: the probe's is judged already. */
function withoutProbe(received: Received, broken: string[]): Received {
  if (received.rest !== '')
    broken.push(`bytes that belong to no answer: ${JSON.stringify(received.rest.slice(0, 80))}`)
  return {
    ...received,
    answers: received.answers.filter(({ body }) => !body.includes('/api/public/probe-same-')),
  }
}

function show(client: RawClient): string {
  const text = client.text()
  return JSON.stringify(text.length > 400 ? `${text.slice(0, 400)}…` : text)
}
