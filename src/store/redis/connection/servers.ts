import type { ConnectionOptions } from 'node:tls'
import type { Logger } from '../../../log.ts'
import type { ObserveStore } from '../../port.ts'
import { createRedisConnection, type RedisConnection, type RedisTransport } from './client.ts'
import { createClusterTopology, openCluster } from './cluster.ts'
import { type Credentials, type Endpoint, openNode, type RedisNode } from './node.ts'
import { watchSentinels } from './sentinels.ts'

/** A secret that is read at each use. */
type Revealable = { reveal(): string }

/** Where Redis is and who we are there: one address, a cluster, or sentinels that know the address. */
export type RedisAddress = {
  readonly username?: string
  /** Read again at each reconnect, so that a rotated one is picked up. */
  readonly password?: Revealable
  readonly tls?: {
    readonly ca?: string
    readonly cert?: string
    /** Read again at each reconnect. */
    readonly key?: Revealable
    readonly servername?: string
  }
} & (
  | {
      /** `redis://` or `rediss://` URL; may hold credentials, so it is never logged. */
      readonly url: string
    }
  | { readonly cluster: readonly Endpoint[] }
  | {
      readonly sentinels: readonly Endpoint[]
      readonly masterName: string
      readonly sentinelUsername?: string
      readonly sentinelPassword?: Revealable
      /** Whether the sentinels are asked over TLS, as Redis is. */
      readonly sentinelTls?: boolean
    }
)

/** What Redis is opened with. */
export type RedisDeps = {
  readonly log: Logger
  readonly observe?: ObserveStore | undefined
  /** Makes connections beside the others whose writes wait for a replica. */
  readonly isDurable?: boolean
  /** Called when a server turns out to be no primary. */
  readonly notPrimary?: (() => void) | undefined
  /** Called when commands go to another server than before, which may lack its last writes. */
  readonly otherServer?: (() => void) | undefined
}

/** The connections to Redis. */
export type RedisServers = {
  readonly commands: RedisConnection
  /** One for the subscription alone: a subscribed connection takes no other commands. */
  readonly subscriber: RedisNode
  close(): Promise<void>
}

/** Opens all connections. */
export function openRedis(address: RedisAddress, deps: RedisDeps): RedisServers {
  const { open, subscriber, close } =
    'cluster' in address
      ? clusterOf(address, deps)
      : singleOf('url' in address ? addressedBy(address) : foundBySentinels(address, deps), deps)
  const commands = createRedisConnection(open('command'), {
    observe: deps.observe,
    durable: deps.isDurable ? open('durable') : undefined,
  })
  return {
    ...{ commands, subscriber },
    async close() {
      await Promise.all([commands.close(), subscriber.close(SUBSCRIBER_GRACE_MS)])
      await close()
    },
  }
}

/** A subscription has nothing in flight. */
const SUBSCRIBER_GRACE_MS = 100
/** Between attempts to reach a primary that others have just named: it is there, or they will name another. */
const MAX_RETRY_DELAY_MS = 200

/** How the connections of one kind of set-up are opened, and what they share is closed. */
type Opened = {
  readonly open: (name: string) => RedisTransport
  readonly subscriber: RedisNode
  readonly close: () => Promise<unknown> | undefined
}

type Single = {
  readonly target: Parameters<typeof openNode>[0]
  onMoved?(listener: () => void): void
  close?(): Promise<unknown>
}

function singleOf({ target, onMoved, close }: Single, { log, notPrimary, otherServer }: RedisDeps): Opened {
  function opened(node: RedisNode): RedisNode {
    onMoved?.(() => node.reconnect())
    return node
  }
  return {
    open(name) {
      const node = opened(openNode(target, { name, log, notPrimary, otherServer }))
      return { ...node, outage: node.outage, timedOut() {}, keyOfEachPrimary: (key) => [key] }
    },
    subscriber: opened(openNode(target, { name: 'invalidation', log })),
    close: () => close?.(),
  }
}

function addressedBy({ url, username, password, tls }: RedisAddress & { readonly url: string }): Single {
  const parsed = new URL(url)
  const inUrl = {
    username: decodeURIComponent(parsed.username),
    password: decodeURIComponent(parsed.password),
  }
  const endpoint = { host: withoutBrackets(parsed.hostname), port: Number(parsed.port || 6379) }
  const database = parsed.pathname.length > 1 ? Number(parsed.pathname.slice(1)) : undefined
  return {
    target: {
      ...{ endpoint: async () => endpoint, database },
      username: username ?? (inUrl.username || undefined),
      password: () => password?.reveal() ?? inUrl.password,
      tls: parsed.protocol === 'rediss:' ? tlsOf(tls ?? {}) : undefined,
    },
  }
}

function foundBySentinels(
  address: Extract<RedisAddress, { sentinels: unknown }>,
  { log }: RedisDeps,
): Single {
  const { sentinels, masterName, sentinelUsername, sentinelPassword, tls } = address
  const { sentinelTls = tls !== undefined } = address
  const found = watchSentinels({
    ...{ endpoints: sentinels, masterName, log },
    credentials: {
      username: sentinelUsername,
      password: sentinelPassword && (() => sentinelPassword.reveal()),
      tls: sentinelTls ? tlsOf(tls ?? {}) : undefined,
    },
  })
  return {
    target: {
      ...credentialsOf(address),
      ...{ endpoint: found.primary, mustBePrimary: true, maxRetryDelayMs: MAX_RETRY_DELAY_MS },
    },
    onMoved: found.onMoved,
    close: found.close,
  }
}

function clusterOf(
  address: Extract<RedisAddress, { cluster: unknown }>,
  { log, otherServer }: RedisDeps,
): Opened {
  const credentials = credentialsOf(address)
  const topology = createClusterTopology({ seeds: address.cluster, credentials, log, otherServer })
  return {
    open: (name) => openCluster({ topology, credentials, name, log, otherServer }),
    // Any node will do: what is published at one reaches all.
    subscriber: openNode(
      { ...credentials, endpoint: topology.nextNode, maxRetryDelayMs: MAX_RETRY_DELAY_MS },
      { name: 'invalidation', log },
    ),
    close: async () => topology.close(),
  }
}

function credentialsOf({ username, password, tls }: RedisAddress): Credentials {
  return {
    username,
    password: password && (() => password.reveal()),
    tls: tls && tlsOf(tls),
  }
}

function tlsOf({ ca, cert, key, servername }: NonNullable<RedisAddress['tls']>) {
  return (): ConnectionOptions => ({
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key: key.reveal() }),
    ...(servername === undefined ? {} : { servername }),
  })
}

const withoutBrackets = (host: string) => host.replace(/^\[|\]$/g, '')
