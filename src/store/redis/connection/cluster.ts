import { every, systemClock } from '../../../async/clock.ts'
import { createDeadline, type Wait } from '../../../async/deadline.ts'
import { silentLog } from '../../../async/log-throttle.ts'
import type { Logger } from '../../../log.ts'
import type { RedisTransport } from './client.ts'
import { type CleanError, notConnected, timedOut } from './errors.ts'
import {
  type Credentials,
  type Endpoint,
  nameOf,
  openNode,
  type RedisNode,
  type RedisRequest,
} from './node.ts'

/** The slots of a Redis Cluster. */
const SLOTS = 16_384

/** The slot of a key: CRC16 (XMODEM) of its hash tag, or of the whole key (Redis Cluster specification, "Hash tags"). */
export function slotOf(key: string): number {
  const [, tag] = /^[^{]*\{([^}]+)\}/.exec(key) ?? []
  let crc = 0
  for (const byte of Buffer.from(tag ?? key)) {
    crc ^= byte << 8
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1
  }
  return (crc & 0xffff) % SLOTS
}

/** Which primary has which slots, as the nodes themselves say. */
export type ClusterTopology = {
  /** Resolves when the nodes were asked for the first time; never rejects. */
  readonly attempted: Promise<void>
  /** The primary of a slot; undefined while no node has said. */
  ownerOf(slot: number): Endpoint | undefined
  readonly primaries: () => readonly Endpoint[]
  /** Why no node could be asked the last time. */
  readonly outage: () => Error | undefined
  /** Asks the nodes again, unless that was done a moment ago. */
  refresh(): Promise<void>
  /** A node has said that a slot has moved. */
  moved(slot: number, endpoint: Endpoint): void
  /** Nodes to ask before any other, because there is a connection to them. */
  askFirst(nodes: () => readonly RedisNode[]): void
  /** Calls `listener` when the primaries have changed. */
  onChange(listener: () => void): void
  /** A node for a subscription, another one each time: what is published reaches all. */
  nextNode(): Promise<Endpoint>
  close(): void
}

type TopologyDeps = {
  readonly seeds: readonly Endpoint[]
  readonly credentials: Credentials
  readonly log: Logger
  /** Called when a node is a primary that was none. */
  readonly otherServer?: (() => void) | undefined
}

const REFRESHED_EVERY_MS = 5000
/** While a node is away, or has said that what we know is old. */
const REFRESHED_AGAIN_MS = 100
/** The same while nothing is connected: each time costs a connection to every node. */
const STRANGERS_ASKED_AGAIN_MS = 500
const ASKED_AT_ONCE = 3
const ANSWERED_WITHIN_MS = 1000

type View = { readonly epoch: number; readonly isOk: boolean; readonly slots: readonly SlotRange[] }
type SlotRange = { readonly from: number; readonly to: number; readonly nodes: readonly Endpoint[] }

/** Asks the nodes for their slots at the start, every 5 s, and whenever what is known turns out to be old. */
export function createClusterTopology({
  seeds,
  credentials,
  log,
  otherServer,
}: TopologyDeps): ClusterTopology {
  const deadline = createDeadline(ANSWERED_WITHIN_MS, timedOut)
  const owners: (Endpoint | undefined)[] = []
  const listeners: (() => void)[] = []
  let primaries: readonly Endpoint[] = []
  let everyNode: readonly Endpoint[] = seeds
  let connected: (() => readonly RedisNode[])[] = []
  let outage: Error | undefined
  let refreshing: Promise<void> | undefined
  let refreshedAt = Number.NEGATIVE_INFINITY
  let turn = Math.floor(Math.random() * SLOTS)
  let isClosed = false

  /** Asks some of the nodes that are there; if none says anything, all that are known, each over a connection of its own. */
  async function ask(): Promise<void> {
    const some = rotated(connectedNodes(), ++turn).slice(0, ASKED_AT_ONCE)
    const asked = await Promise.allSettled(some.map((node) => viewOf(node)))
    const views = asked.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
    if (views.length === 0) views.push(...(await askStrangers()))
    // A node that is cut off from most others knows an older epoch, and has found out that the state is not ok.
    const [newest] = views.toSorted((a, b) => Number(b.isOk) - Number(a.isOk) || b.epoch - a.epoch)
    if (newest) take(newest)
  }

  const connectedNodes = () => connected.flatMap((nodes) => nodes()).filter((node) => node.isThere())

  async function askStrangers(): Promise<View[]> {
    const strangers = new Map([...everyNode, ...seeds].map((endpoint) => [nameOf(endpoint), endpoint]))
    const views: View[] = []
    const failures: string[] = []
    await Promise.all(
      [...strangers].map(async ([name, endpoint]) => {
        const node = openNode({ ...credentials, endpoint: async () => endpoint }, { name, log: silentLog })
        try {
          views.push(await viewOf(node))
        } catch (error) {
          failures.push(`${name}: ${(node.outage() ?? (error as Error)).message}`)
        } finally {
          node.close(0)
        }
      }),
    )
    outage =
      views.length > 0 ? undefined : notConnected(`no node of the cluster answers: ${failures.join('; ')}`)
    return views
  }

  async function viewOf(node: RedisNode): Promise<View> {
    const [info, slots] = await deadline.within(async (wait) => {
      await node.attempted
      if (!node.isThere()) throw node.outage() ?? notConnected()
      const send = (word: string) => node.send(clusterRequest(word), wait)
      return (await Promise.all([send('INFO'), send('SLOTS')])) as [string, SlotReply[]]
    })
    return {
      isOk: /^cluster_state:ok/m.test(info),
      epoch: Number(/^cluster_current_epoch:(\d+)/m.exec(info)?.[1] ?? 0),
      slots: slots.map(([first, last, ...nodes]) => ({
        ...{ from: first, to: last },
        // A node that does not know its own name leaves it out: it is the one that was asked.
        nodes: nodes.map(([host, port]) => ({ host: host || node.endpoint()!.host, port })),
      })),
    }
  }

  function take({ slots }: View): void {
    for (const { from, to, nodes } of slots) owners.fill(nodes[0], from, to + 1)
    const found = new Map(slots.flatMap(({ nodes: [owner] }) => (owner ? [[nameOf(owner), owner]] : [])))
    everyNode = slots.flatMap(({ nodes }) => nodes)
    if ([...found.values()].some(isNewPrimary)) otherServer?.()
    const isChanged = [...found.keys()].toSorted().join() !== primaries.map(nameOf).toSorted().join()
    primaries = [...found.values()]
    if (!isChanged) return
    log.info(
      { outcome: 'moved' },
      `redis cluster has the primaries ${[...found.keys()].toSorted().join(', ')}`,
    )
    for (const listener of listeners) listener()
  }

  function isNewPrimary(endpoint: Endpoint): boolean {
    const isKnown = primaries.some((primary) => nameOf(primary) === nameOf(endpoint))
    return primaries.length > 0 && !isKnown
  }

  function refresh(): Promise<void> {
    if (isClosed) return Promise.resolve()
    refreshing ??= refreshOnce().finally(() => {
      refreshing = undefined
    })
    return refreshing
  }

  async function refreshOnce(): Promise<void> {
    const sinceMs = systemClock.monotonicNow() - refreshedAt
    const pauseMs = connectedNodes().length > 0 ? REFRESHED_AGAIN_MS : STRANGERS_ASKED_AGAIN_MS
    if (sinceMs < pauseMs) await systemClock.pause(pauseMs - sinceMs)
    await ask().catch((error: Error) => {
      outage = error
    })
    refreshedAt = systemClock.monotonicNow()
  }

  owners.length = SLOTS
  const attempted = refresh()
  const timer = every(systemClock, REFRESHED_AGAIN_MS, () => {
    const isQuiet =
      primaries.length > 0 && connected.every((nodes) => nodes().every((node) => node.isThere()))
    if (!isQuiet || systemClock.monotonicNow() - refreshedAt > REFRESHED_EVERY_MS) refresh()
  }).unref()
  return {
    ...{ attempted, refresh },
    ownerOf: (slot) => owners[slot],
    primaries: () => primaries,
    outage: () => outage,
    moved(slot, endpoint) {
      // Slots that go from one primary to another take their keys with them; a replica that takes over may lack some.
      if (isNewPrimary(endpoint)) otherServer?.()
      owners[slot] = endpoint
      refresh()
    },
    askFirst(nodes) {
      connected = [...connected, nodes]
    },
    onChange: (listener) => void listeners.push(listener),
    async nextNode() {
      await attempted
      const [next] = rotated(everyNode, ++turn)
      return next ?? seeds[0]!
    },
    close() {
      isClosed = true
      timer.cancel()
    },
  }
}

/** An item of `CLUSTER SLOTS`: first and last slot, then its nodes, the primary first. */
type SlotReply = [first: number, last: number, ...nodes: [host: string | null, port: number][]]

const clusterRequest = (word: string): RedisRequest => ({
  ...{ label: 'cluster', isRepeatable: true },
  send: (link) => link.call('CLUSTER', [word]),
})

function rotated<T>(list: readonly T[], turn: number): T[] {
  const at = list.length === 0 ? 0 : turn % list.length
  return [...list.slice(at), ...list.slice(0, at)]
}

/** What nodes say that refuse a command without having done anything of it, and for how long that may last. */
const REFUSED_FOR_NOW: ReadonlySet<string | undefined> = new Set([
  ...['TRYAGAIN', 'CLUSTERDOWN', 'LOADING', 'MASTERDOWN', 'READONLY'],
])
const TRIED_AGAIN_MS = 25
/** For the commands in flight to a node that is no primary any more. */
const GRACE_MS = 500

const closed = () => notConnected('the store is closed')

type ClusterDeps = {
  readonly topology: ClusterTopology
  readonly credentials: Credentials
  /** What the log calls its connections. */
  readonly name: string
  readonly log: Logger
  /** Called when a node was started anew. */
  readonly otherServer?: (() => void) | undefined
}

/**
 * Connections to every primary of a Redis Cluster. Not the client of ioredis for clusters: that one repeats any command
 * whose answer was lost, keeps the password of its start, and has no way to say which node a WAIT goes to.
 */
export function openCluster({ topology, credentials, name, log, otherServer }: ClusterDeps): RedisTransport {
  const nodes = new Map<string, RedisNode>()
  let isClosed = false

  function nodeAt(endpoint: Endpoint): RedisNode {
    const at = nameOf(endpoint)
    const open = nodes.get(at)
    if (open) return open
    if (isClosed) throw closed()
    const target = { ...credentials, endpoint: async () => endpoint, maxRetryDelayMs: 200 }
    const node = openNode(target, { name: `${name} ${at}`, log, otherServer })
    node.onClose(() => void topology.refresh())
    nodes.set(at, node)
    return node
  }

  /** Opens what is missing, and closes those that are no primaries any more: what waits for them goes to others. */
  function follow(): void {
    const wanted = new Set(topology.primaries().map(nameOf))
    for (const endpoint of topology.primaries()) nodeAt(endpoint)
    for (const [at, node] of nodes) {
      if (wanted.has(at)) continue
      nodes.delete(at)
      node.close(GRACE_MS)
    }
  }

  async function ownerOf(key: string | undefined, wait: Wait): Promise<RedisNode> {
    const slot = key === undefined ? Math.floor(Math.random() * SLOTS) : slotOf(key)
    for (;;) {
      const owner = topology.ownerOf(slot)
      if (owner) return nodeAt(owner)
      // A topology that is closed asks no node again, so that the next turn would come at once, and for ever.
      if (isClosed) throw closed()
      if (wait.isOver) throw timedOut()
      const outage = topology.outage()
      if (outage) throw outage
      await topology.refresh()
    }
  }

  /** Sends by `send`, until a node takes the request or it is too late. */
  async function routed<T>(
    request: RedisRequest,
    wait: Wait,
    send: (node: RedisNode, isAsking: boolean) => Promise<T>,
  ): Promise<T> {
    let asked: Endpoint | undefined
    for (;;) {
      const node = asked ? nodeAt(asked) : await ownerOf(request.key, wait)
      try {
        return await send(node, asked !== undefined)
      } catch (error) {
        if (wait.isOver) throw error
        asked = await next(request, node, error as CleanError)
      }
    }
  }

  /** Gives the node to ask out of turn, or undefined for the owner of the slot; throws what no other try would change. */
  async function next(
    request: RedisRequest,
    node: RedisNode,
    error: CleanError,
  ): Promise<Endpoint | undefined> {
    const { code, redirection, isReply } = error
    if (redirection) {
      const endpoint = {
        ...{ host: redirection.host || node.endpoint()!.host, port: redirection.port },
      }
      if (code === 'ASK') return endpoint
      topology.moved(redirection.slot, endpoint)
      return undefined
    }
    if (REFUSED_FOR_NOW.has(code)) {
      if (code !== 'TRYAGAIN') topology.refresh()
      await systemClock.pause(TRIED_AGAIN_MS)
      return undefined
    }
    // The node went away, and another one has its slots now.
    if (isReply || !isOwnedByAnother(request.key, node)) throw error
    if (!request.isRepeatable && !error.isUnsent) throw error
    return undefined
  }

  function isOwnedByAnother(key: string | undefined, node: RedisNode): boolean {
    const owner = key === undefined ? undefined : topology.ownerOf(slotOf(key))
    return owner !== undefined && nodes.get(nameOf(owner)) !== node
  }

  topology.askFirst(() => [...nodes.values()])
  topology.onChange(follow)
  const attempted = topology.attempted.then(async () => {
    follow()
    await Promise.all([...nodes.values()].map((node) => node.attempted))
  })
  return {
    attempted,
    send: (request, wait) =>
      request.key === undefined
        ? sendToAll(request, wait)
        : routed(request, wait, (node, isAsking) =>
            isAsking ? node.sendAsking(request, wait) : node.send(request, wait),
          ),
    // Not where a slot is moving to: that node's replica is another matter, and the slot has moved at the next try.
    sendDurably: (request, wait) =>
      routed(request, wait, async (node, isAsking) =>
        isAsking
          ? {
              reply: await node.sendAsking(request, wait),
              replication: Promise.resolve({ isReplicated: false }),
            }
          : node.sendDurably(request, wait),
      ),
    outage(key) {
      const owner = key === undefined ? undefined : topology.ownerOf(slotOf(key))
      if (owner) return nodes.get(nameOf(owner))?.outage()
      if (key !== undefined && topology.primaries().length > 0)
        return notConnected(`no node of the cluster has slot ${slotOf(key)}`)
      return [...nodes.values()].map((node) => node.outage()).find(Boolean) ?? topology.outage()
    },
    timedOut: () => void topology.refresh(),
    keyOfEachPrimary(name) {
      const keys = new Map<string, string>()
      const wanted = topology.primaries().length
      for (let n = 0; n < SLOTS && keys.size < wanted; n += 1) {
        const key = `${name}:${n}`
        const owner = topology.ownerOf(slotOf(key))
        if (owner && !keys.has(nameOf(owner))) keys.set(nameOf(owner), key)
      }
      return [...keys.values()]
    },
    async close(graceMs) {
      isClosed = true
      await Promise.all([...nodes.values()].map((node) => node.close(graceMs)))
    },
  }

  /** What has no key is asked of every primary: without one of them some sessions cannot be served. */
  async function sendToAll(request: RedisRequest, wait: Wait): Promise<unknown> {
    if (topology.primaries().length === 0) await ownerOf(undefined, wait)
    const replies = topology.primaries().map((primary) => nodeAt(primary).send(request, wait))
    return (await Promise.all(replies))[0]
  }
}
