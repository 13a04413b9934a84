import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { BffError } from '../../../src/errors.ts'
import { createRedisConnection } from '../../../src/store/redis/connection/client.ts'
import { notConnected } from '../../../src/store/redis/connection/errors.ts'

type Transport = Parameters<typeof createRedisConnection>[0]

test('while Redis is away all are told to come back soon, however many they are: it may be back in a moment', async () => {
  const transport = {
    attempted: Promise.resolve(),
    send: () => Promise.reject(notConnected()),
    outage: () => undefined,
    timedOut: () => undefined,
  } as unknown as Transport
  const connection = createRedisConnection(transport, {})
  const refusals = await Promise.all(
    Array.from({ length: 5_000 }, () => connection.call('ping', 'PING').catch((error: BffError) => error)),
  )
  const told = new Set(refusals.map((error) => (error as BffError).retryAfterSeconds))
  assert.deepEqual([...told], [2])
})
