import { every, systemClock, type Timer } from '../../../async/clock.ts'
import { createDeadline } from '../../../async/deadline.ts'
import type { Logger } from '../../../log.ts'
import { notConnected } from './errors.ts'
import {
  type Credentials,
  type Endpoint,
  nameOf,
  openNode,
  type RedisNode,
  type RedisRequest,
} from './node.ts'

type SentinelsDeps = {
  readonly endpoints: readonly Endpoint[]
  readonly masterName: string
  readonly credentials: Credentials
  readonly log: Logger
}

/** What the sentinels say of their primary. */
export type Sentinels = {
  /** Where the primary is; rejects with what the sentinels say in place of it. */
  primary(): Promise<Endpoint>
  /** Calls `listener` when the sentinels name another primary than before. */
  onMoved(listener: () => void): void
  close(): Promise<void>
}

/** A failover is noticed so soon, also when the old primary is still there and takes writes that will be lost. */
const ASKED_EVERY_MS = 250
/** How long a sentinel may take when others do not agree without it. */
const ANSWERED_WITHIN_MS = 400

/** Time for the rest when most have answered: the one that leads a failover may be among them. */
const LATECOMERS_MS = 20
/** Within this time every sentinel has heard of a newer configuration from the others. After it, epochs were set back by hand. */
const GOSSIP_MS = 3000

type Said = Endpoint & { readonly epoch: number }

/**
 * Asks every sentinel, over connections that are kept, and believes those of the newest configuration: while a failover
 * runs, and for the sentinel on the far side of a cut network, the others still name the old primary.
 */
export function watchSentinels({ endpoints, masterName, credentials, log }: SentinelsDeps): Sentinels {
  const deadline = createDeadline(ANSWERED_WITHIN_MS, () => notConnected('it does not answer'))
  const sentinels = endpoints.map((endpoint) => {
    const name = nameOf(endpoint)
    const target = { ...credentials, endpoint: async () => endpoint }
    return { name, node: openNode(target, { name: `sentinel ${name}`, log }) }
  })
  let known: Said | undefined
  let knownAt = 0
  let asking: Promise<Endpoint> | undefined
  let moved: () => void = () => undefined

  async function ask(): Promise<Endpoint> {
    const said: Said[] = []
    const refusals: string[] = []
    const majority = Promise.withResolvers<void>()
    const all = sentinels.map(async ({ name, node }) => {
      try {
        said.push(await deadline.within((wait) => askOne(node, masterName, wait)))
        if (said.length > endpoints.length / 2) majority.resolve()
      } catch (error) {
        refusals.push(`${name}: ${(node.outage() ?? (error as Error)).message}`)
      }
    })
    await Promise.race([Promise.all(all), majority.promise.then(() => systemClock.pause(LATECOMERS_MS))])
    const [heard] = said.toSorted((a, b) => b.epoch - a.epoch)
    const newest = heard && newerOf(heard)
    if (!newest) throw notConnected(`no sentinel names the primary of ${masterName}: ${refusals.join('; ')}`)
    const isMoved = known !== undefined && nameOf(known) !== nameOf(newest)
    known = newest
    if (heard === newest) knownAt = systemClock.monotonicNow()
    if (isMoved) {
      log.warn({ outcome: 'moved' }, `redis primary is ${nameOf(newest)} now`)
      moved()
    }
    return newest
  }

  /** The sentinel that leads a failover may be late this time: the others still name the old primary, for two seconds. */
  function newerOf(heard: Said): Said {
    const isOlder = known !== undefined && heard.epoch < known.epoch
    return isOlder && systemClock.monotonicNow() - knownAt < GOSSIP_MS ? known! : heard
  }

  /** One question at a time: each connection that is lost asks, and there are several. */
  function primary(): Promise<Endpoint> {
    asking ??= ask().finally(() => {
      asking = undefined
    })
    return asking
  }

  const timer: Timer = every(systemClock, ASKED_EVERY_MS, () => primary().catch(() => undefined)).unref()
  return {
    primary,
    onMoved(listener) {
      const before = moved
      moved = () => {
        before()
        listener()
      }
    },
    async close() {
      timer.cancel()
      await Promise.all(sentinels.map(({ node }) => node.close(0)))
    },
  }
}

/** The address, which a sentinel that leads a failover changes first, and the epoch of its configuration. */
async function askOne(
  node: RedisNode,
  masterName: string,
  wait: Parameters<RedisNode['send']>[1],
): Promise<Said> {
  const ask = (words: readonly string[]) =>
    node.send(
      request('sentinel', (link) => link.call('SENTINEL', words)),
      wait,
    )
  const [address, state] = (await Promise.all([
    ask(['get-master-addr-by-name', masterName]),
    // Not allowed, or not known: all epochs are the same then.
    ask(['master', masterName]).catch(() => []),
  ])) as [string[] | null, string[]]
  if (!address) throw notConnected(`knows no primary by that name`)
  const [host, port] = address as [string, string]
  const at = state.indexOf('config-epoch')
  return { host, port: Number(port), epoch: at < 0 ? 0 : Number(state[at + 1]) }
}

const request = (label: string, send: RedisRequest['send']): RedisRequest => ({
  ...{ label, isRepeatable: true, send },
})
