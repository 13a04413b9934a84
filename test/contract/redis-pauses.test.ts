import { test } from 'node:test'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'
import { eventually, openRedisStore } from '../kit/store/store-contestants.ts'

/** As a garbage collection, a throttled container or a paused machine does. */
function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

test('an answer of Redis that came while the process stood still is taken, however long that was', {
  skip: skipWithoutRedis(),
}, async (t) => {
  const redis = await startRedis()
  t.after(() => redis.stop())
  const store = await openRedisStore(t, redis)
  for (let round = 0; round < 5; round += 1) {
    const answer = store.ping()
    // On its way to Redis, which has answered long before the process goes on.
    await new Promise(setImmediate)
    standStill(700)
    await answer
    await eventually(() => store.invalidations.isLive())
  }
})
