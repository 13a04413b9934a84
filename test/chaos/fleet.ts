import { Agent } from 'node:http'
import { type Exit, type Replica, startReplica } from '../kit/replica.ts'
import { heapAfterCollection, WITH_COLLECTABLE_HEAP } from './replica-metrics.ts'

/** One life of one replica. Times in epoch ms. */
export type Member = {
  /** Name of the replica and number of the life, such as `b.3`. */
  readonly label: string
  readonly replica: Replica
  readonly agent: Agent
  /** Bytes in use right after the start. */
  readonly baseHeap: number
  killedAt?: number
  isStopped?: boolean
}

/** The replicas: who is up, and who was. */
export type Fleet = {
  readonly up: readonly Member[]
  readonly lives: readonly Member[]
  /** SIGKILL, then a new life after `downMs`. */
  killAndRestart(member: Member, downMs: number): Promise<void>
  /** SIGTERM to all; resolves with those that did not end as they should. */
  stop(): Promise<string[]>
  /** SIGKILL to whatever still runs. */
  destroy(): Promise<void>
}

const READY_MS = 60_000

/** Starts one replica per name. @param violation told of every process that ends without being asked. */
export async function startFleet(
  names: readonly string[],
  deps: { configFile: string; tokenEndpoint: string; violation: (text: string) => void },
): Promise<Fleet> {
  const up: Member[] = []
  const lives: Member[] = []
  const counts = new Map<string, number>()
  let isOver = false

  async function start(name: string): Promise<void> {
    const life = (counts.get(name) ?? 0) + 1
    counts.set(name, life)
    const label = `${name}.${life}`
    const replica = await startReplica({
      configFile: deps.configFile,
      readyTimeoutMs: READY_MS,
      // The provider can then tell who presents a refresh token.
      env: { ...WITH_COLLECTABLE_HEAP, TOKEN_ENDPOINT: `${deps.tokenEndpoint}?replica=${label}` },
    })
    const baseHeap = await heapAfterCollection(replica)
    const member: Member = { label, replica, agent: new Agent({ keepAlive: true }), baseHeap }
    lives.push(member)
    if (isOver) return kill(member)
    void replica.exited.then((exit) => {
      if (member.killedAt === undefined && !member.isStopped)
        deps.violation(
          `${label} ended by itself with ${endOf(exit)}: ${replica.stderr.slice(-3).join(' | ')}`,
        )
    })
    up.push(member)
  }

  async function kill(member: Member): Promise<void> {
    member.killedAt = Date.now()
    const place = up.indexOf(member)
    if (place >= 0) up.splice(place, 1)
    await member.replica.stop('SIGKILL')
    member.agent.destroy()
  }

  const fleet: Fleet = {
    up,
    lives,
    async killAndRestart(member, downMs) {
      await kill(member)
      await new Promise((resolve) => setTimeout(resolve, downMs))
      if (!isOver) await start(member.label.split('.')[0]!)
    },
    async stop() {
      isOver = true
      const stopping = up.splice(0).map(async (member) => {
        member.isStopped = true
        member.agent.destroy()
        const exit = await member.replica.stop()
        return exit.code === 0 ? [] : [`${member.label} did not drain: ${endOf(exit)}`]
      })
      return (await Promise.all(stopping)).flat()
    },
    async destroy() {
      isOver = true
      await Promise.all(lives.filter(({ isStopped }) => !isStopped).map(kill))
    },
  }
  try {
    await Promise.all(names.map(start))
  } catch (error) {
    await fleet.destroy()
    throw error
  }
  return fleet
}

function endOf({ code, signal }: Exit): string {
  return String(code ?? signal)
}
