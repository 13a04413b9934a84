import assert from 'node:assert/strict'
import type { TestRedis } from './redis.ts'

/** One value that Redis holds; `field` is empty but in a hash. */
export type Stored = { readonly key: string; readonly field: string; readonly value: string }

/** Every key with everything in it; an unknown type fails the test. */
export async function contentOf(redis: TestRedis): Promise<Stored[]> {
  const keys = await redis.cli('KEYS', '*')
  const perKey = keys.map(async (key): Promise<Stored[]> => {
    const [type] = await redis.cli('TYPE', key)
    if (type === 'string') return [{ key, field: '', value: (await redis.cli('GET', key))[0] ?? '' }]
    const members = type === 'zset' ? ['ZRANGE', key, '0', '-1'] : type === 'set' ? ['SMEMBERS', key] : []
    if (members.length > 0) return (await redis.cli(...members)).map((value) => ({ key, field: '', value }))
    assert.equal(type, 'hash', `${key} is of an unknown type`)
    const flat = await redis.cli('HGETALL', key)
    return Array.from({ length: flat.length / 2 }, (_, at) => ({
      key,
      field: flat[2 * at]!,
      value: flat[2 * at + 1]!,
    }))
  })
  return (await Promise.all(perKey)).flat()
}
