import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { inspect } from 'node:util'
import { Secret } from '../../src/config/secrets/secret.ts'
import type { BffError } from '../../src/errors.ts'
import { createMemoryStore } from '../../src/store/memory/memory-store.ts'
import type { Store } from '../../src/store/port.ts'
import type { RedisAddress } from '../../src/store/redis/connection/servers.ts'
import { createRedisStore } from '../../src/store/redis/redis-store.ts'
import { freePort } from '../kit/ports.ts'
import { selfSigned } from '../kit/self-signed.ts'
import { accessRule } from '../kit/store/access-rule.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'
import { eventually, redisForThisFile, silentLog } from '../kit/store/store-contestants.ts'

const PASSWORD = 'geheim'

async function withStore<T>(config: RedisAddress, use: (store: Store) => Promise<T>): Promise<T> {
  const times = { idleTimeoutMs: () => 60_000, absoluteTimeoutMs: () => 600_000 }
  const store = await createRedisStore({ keyPrefix: 'cloakroom', ...config }, times, { log: silentLog })
  try {
    return await use(store)
  } finally {
    await store.close()
  }
}

/** What the trial says of a store that will not do. */
const refusal = (store: Store) =>
  store.tryOut().then(
    () => 'nothing',
    (error: BffError) => `${error.code} ${error.message}: ${(error.cause as Error | undefined)?.message}`,
  )

suite('the trial of a store', { skip: skipWithoutRedis() }, () => {
  const server = redisForThisFile()
  const asCloakroom = () => ({
    ...{ url: server().url, username: 'cloakroom', password: new Secret(PASSWORD) },
  })

  test('passes with the access rule of the README, and leaves nothing behind', async () => {
    await server().cli(...accessRule(PASSWORD))
    await withStore(asCloakroom(), async (store) => {
      await eventually(() => store.invalidations.isLive())
      await store.tryOut()
    })
    // The count of its last step lives for a millisecond.
    await eventually(async () => (await server().cli('KEYS', '*')).length === 0)
  })

  test('finds every single right of that rule missing, and says which', async () => {
    const rule = accessRule(PASSWORD)
    const rights = rule.filter((word) => /^\+/.test(word)).map((word) => word.slice(1))
    // Nothing is asked for with these but what kind of server it is, and another database than 0.
    const needed = rights.filter((right) => !['info', 'select'].includes(right))
    assert.ok(needed.length >= 16)
    for (const right of needed) {
      await server().cli('ACL', 'DELUSER', 'cloakroom')
      await server().cli(...rule, `-${right}`)
      const said = await withStore(asCloakroom(), refusal)
      assert.match(said, new RegExp(`^store_unavailable .*\\b${right}\\b`, 'i'), `without ${right}`)
      assert.doesNotMatch(said, new RegExp(PASSWORD))
    }
  })

  test('finds the channel or the keys out of reach', async () => {
    for (const [right, what] of [
      ['resetchannels', /channel/],
      ['resetkeys', /key/],
    ] as const) {
      await server().cli('ACL', 'DELUSER', 'cloakroom')
      await server().cli(...accessRule(PASSWORD), right)
      assert.match(await withStore(asCloakroom(), refusal), what)
    }
  })

  test('finds a wrong password, and a database that is not there', async () => {
    await server().cli('ACL', 'DELUSER', 'cloakroom')
    await server().cli(...accessRule('another'))
    assert.match(await withStore(asCloakroom(), refusal), /WRONGPASS/)
    assert.match(await withStore({ url: `${server().url}/99` }, refusal), /DB index is out of range/)
  })

  test('finds a replica that takes no writes', async (t) => {
    await server().cli('REPLICAOF', '127.0.0.1', '1')
    t.after(() => server().cli('REPLICAOF', 'NO', 'ONE'))
    assert.match(await withStore({ url: server().url }, refusal), /READONLY/)
  })
})

suite('the trial of a store that is another kind of server', {
  skip: skipWithoutRedis(),
  concurrency: true,
}, () => {
  test('finds one node of a Redis Cluster, which has only some of the slots', async (t) => {
    const port = String(await freePort())
    const node = await startRedis({ args: ['--cluster-enabled', 'yes', '--cluster-port', port] })
    t.after(() => node.stop())
    // Few, so that the trial's keys, which are random, are never all in them.
    await node.cli('CLUSTER', 'ADDSLOTSRANGE', '0', '99')
    await node.cli('CONFIG', 'SET', 'cluster-require-full-coverage', 'no')
    await eventually(async () => (await node.cli('CLUSTER', 'INFO')).join().includes('cluster_state:ok'))
    assert.match(await withStore({ url: node.url }, refusal), /^store_unavailable .*(MOVED|CLUSTERDOWN)/)
  })

  test('finds a certificate of an unknown authority, and passes with one that is trusted', async (t) => {
    const { cert, key } = selfSigned(['localhost'])
    const folder = await mkdtemp(join(tmpdir(), 'cloakroom-tls-'))
    t.after(() => rm(folder, { recursive: true }))
    const [certFile, keyFile] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
    await Promise.all([writeFile(certFile, cert), writeFile(keyFile, key)])
    const plain = await startRedis({
      args: ['--tls-cert-file', certFile, '--tls-key-file', keyFile, '--tls-auth-clients', 'no'],
    })
    t.after(() => plain.stop())
    // Beside the plain one, which redis-cli takes.
    const port = await freePort()
    await plain.cli('CONFIG', 'SET', 'tls-port', String(port))
    const url = `rediss://localhost:${port}`
    assert.match(await withStore({ url }, refusal), /self-signed certificate/)
    const another = selfSigned(['localhost'])
    assert.match(await withStore({ url, tls: { ca: another.cert } }, refusal), /certificate/)
    const said = await withStore({ url, tls: { ca: cert, servername: 'other.example' } }, refusal)
    assert.match(said, /does not match certificate's altnames: Host: other\.example\./, 'the whole message')
    assert.equal(await withStore({ url, tls: { ca: cert } }, refusal), 'nothing')
  })
})

test('a store in memory passes', async (t) => {
  const store = createMemoryStore({ idleTimeoutMs: () => 1, monotonicNow: () => 0 })
  t.after(() => store.close())
  assert.equal(inspect(await store.tryOut()), 'undefined')
})
