import { setTimeout as delay } from 'node:timers/promises'
import type { TestRedis } from '../kit/store/redis.ts'
import type { Fleet } from './fleet.ts'
import type { SeededRandom } from './seeded-random.ts'
import type { Weather } from './weather.ts'

/** A time in which the store did not serve. Epoch ms. */
export type StoreOutage = { readonly kind: 'frozen' | 'restarted'; readonly from: number; to: number }

/** Everything done to the system while people used it. */
export type Disturbances = {
  readonly outages: readonly StoreOutage[]
  readonly kills: () => number
  readonly storms: () => number
  /** Ends when `signal` does, with everything put right again. */
  run(signal: AbortSignal): Promise<void>
}

export type DisturbancesDeps = {
  readonly fleet: Fleet
  readonly redis: TestRedis
  readonly weather: Weather
  readonly random: SeededRandom
  /** Pauses between two disturbances are multiplied with it. */
  readonly pace: number
}

const RESTART_TRIES = 3

/** Makes the actors: each has pauses of its own, so that their disturbances meet in every way. */
export function createDisturbances({ fleet, redis, weather, random, pace }: DisturbancesDeps): Disturbances {
  const outages: StoreOutage[] = []
  let kills = 0
  let storms = 0

  async function repeat(
    signal: AbortSignal,
    [shortest, longest]: [number, number],
    act: (random: SeededRandom, pause: (ms: number) => Promise<void>) => Promise<void>,
  ): Promise<void> {
    const own = random.branch(act.name)
    const pause = (ms: number) => delay(ms, undefined, { signal }).catch(() => undefined)
    for (;;) {
      await pause(own.between(shortest, longest) * pace)
      if (signal.aborted) return
      await act(own, pause)
    }
  }

  async function killReplicas(own: SeededRandom): Promise<void> {
    const victims = fleet.up.filter(() => own.chance(0.4)).slice(0, fleet.up.length - 1)
    kills += victims.length
    await Promise.all(victims.map((victim) => fleet.killAndRestart(victim, own.between(0, 1_500))))
  }

  async function disturbStore(own: SeededRandom, pause: (ms: number) => Promise<void>): Promise<void> {
    const kind = own.chance(0.6) ? 'frozen' : 'restarted'
    const outage: StoreOutage = { kind, from: Date.now(), to: Number.POSITIVE_INFINITY }
    outages.push(outage)
    if (kind === 'frozen') {
      redis.pause()
      // Shorter and longer than the time a lock lives.
      await pause(own.chance(0.7) ? own.between(100, 1_500) : own.between(1_500, 6_000))
      redis.resume()
    } else {
      await redis.kill()
      await pause(own.between(0, 2_500))
      await started(redis)
    }
    outage.to = Date.now()
  }

  async function changeWeather(own: SeededRandom, pause: (ms: number) => Promise<void>): Promise<void> {
    storms += 1
    weather.set('down')
    await pause(own.between(200, 2_500))
    weather.set('rough')
  }

  return {
    ...{ outages, kills: () => kills, storms: () => storms },
    async run(signal) {
      weather.set('rough')
      try {
        await Promise.all([
          repeat(signal, [2_000, 7_000], killReplicas),
          repeat(signal, [2_500, 7_000], disturbStore),
          repeat(signal, [6_000, 15_000], changeWeather),
        ])
      } finally {
        weather.set('calm')
      }
    },
  }
}

async function started(redis: TestRedis): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await redis.restart()
    } catch (error) {
      if (attempt === RESTART_TRIES) throw error
    }
  }
}
