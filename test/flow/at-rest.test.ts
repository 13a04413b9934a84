import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import {
  bindToGrants,
  createSealing,
  type SealedPurpose,
  type Sealing,
} from '../../src/tokens/record/sealing.ts'
import type { Browser } from '../kit/browsers/browser.ts'
import { type RotatingProvider, startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { assertNoSecrets } from '../kit/secrets.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { BILLING, movableClock, ORDERS, type Scope, startShop, verdict } from '../kit/shops/shop.ts'
import { skipWithoutRedis, startRedis, type TestRedis } from '../kit/store/redis.ts'
import { contentOf, type Stored } from '../kit/store/redis-content.ts'

const PERSONS = ['ada.lovelace-4711', 'grace.hopper-4712']
const KINDS = ['session', 'refresh_token', 'access_token', 'client_token', 'login'] as const

describe('Redis at rest', { skip: skipWithoutRedis() }, () => {
  test('neither a dump of Redis nor what was ever sent to it holds a token, a cookie, a session id or a name', async (t) => {
    const { redis, provider, browsers, wire, keys } = await afterBusyDay(t)
    const values = await contentOf(redis)
    assert.ok(values.length >= 8, `only ${values.length} values to look at`)
    const [folder] = (await redis.cli('CONFIG', 'GET', 'dir')).slice(-1)
    await redis.cli('CONFIG', 'SET', 'rdbcompression', 'no')
    await redis.cli('SAVE')
    const dump = (await readFile(join(folder!, 'dump.rdb'))).toString('latin1')
    assert.ok(dump.includes(values[0]!.key), 'the dump is readable')
    assert.ok(wire().includes('HSET'), 'the commands were seen')

    const cookies = browsers.flatMap(({ cookies }) => cookies.map(({ value }) => value))
    const secrets = [
      ...provider.issuedSecrets,
      ...codeVerifiers(provider),
      ...cookies,
      ...cookies.map(sessionIdOf),
      ...PERSONS.flatMap((person) => [person, `${person}@example.com`]),
      ...keys,
      provider.clientSecret,
    ]
    const listing = values.map(({ key, field, value }) => `${key} ${field} ${value}`).join('\n')
    assertNoSecrets({ 'the content': listing, 'the dump': dump, 'the commands': wire() }, secrets)
  })

  test('the session keys alone open nothing; with the id in the cookie they do', async (t) => {
    const { redis, browsers, shop } = await afterBusyDay(t)
    const { config } = shop.cloakroom
    const sealing = bindToGrants(createSealing(config.session.keys), config)
    const content = await contentOf(redis)
    const isIndex = ({ key }: Stored) =>
      key.endsWith(':life') || /^cloakroom:(?:sub|idp):[\w-]{43}$/.test(key)
    // Pseudonyms of users and of their sessions at the provider, and hashes of sessions: nothing of it opens anything.
    const indexes = content.filter(isIndex)
    assert.ok(indexes.length >= 4)
    for (const { value } of indexes) assert.match(value, /^(?:[\w-]{43}|sub:[\w-]{43}(?: idp:[\w-]{43})?)$/)
    // The one exception: what a user's list of sessions tells, bound to its session, without a claim.
    const about = content.filter(({ key }) => key.endsWith(':about'))
    assert.equal(about.length, 2)
    about.forEach(({ key, value }, at) => {
      const hashOf = (name = '') => /\{(.+)\}/.exec(name)?.[1] ?? ''
      const told = sealing.open({ id: hashOf(key), kind: 'about' }, value) ?? '{}'
      assert.deepEqual(Object.keys(JSON.parse(told)).sort(), ['created', 'ip', 'lastSeen', 'userAgent'])
      assert.equal(sealing.open({ id: hashOf(about[1 - at]?.key), kind: 'about' }, value), undefined)
    })
    const values = content.filter((one) => one.field !== 'v' && !isIndex(one) && !about.includes(one))
    const names = ['', ...values.flatMap(({ key, field }) => [key, field, ...key.split(/[:{}]+/)])]
    const guesses = [...new Set([...names, ...names.map((name) => name.replace(/^at:/, ''))])]
    for (const { key, field, value } of values)
      assert.equal(opened(sealing, value, guesses), undefined, `${key} ${field}`)

    const ids = browsers.flatMap(({ cookies }) => cookies.map(({ value }) => sessionIdOf(value)))
    const openable = values.map(({ value }) => opened(sealing, value, ids))
    assert.equal(openable.filter(Boolean).length, values.length, 'the same search finds what it should')
    const other = bindToGrants(createSealing([Buffer.alloc(32, 7)]), config)
    for (const { value } of values) assert.equal(opened(other, value, ids), undefined, 'the ids alone')
  })
})

/** Two people signed in, renewed their tokens, one signed in again, one attempt is still in flight. */
async function afterBusyDay(t: Scope) {
  const redis = await startRedis()
  t.after(() => redis.stop())
  const wire = await watchCommands(t, redis)
  const provider = await startRotatingProvider({ control: { idTokenOnRefresh: true } })
  t.after(() => provider.close())
  const clock = movableClock()
  const shop = await startShop(t, {
    provider: provider.settings,
    jwks: provider.endpoints.jwks,
    redisUrl: redis.url,
    now: clock.now,
  })
  const browsers: Browser[] = []
  for (const person of PERSONS) {
    provider.control.user = person
    provider.control.idTokenClaims = { email: `${person}@example.com` }
    const browser = shop.browser()
    browsers.push(browser)
    await browser.signIn()
    for (const [path, audience] of [
      ['/api/orders', ORDERS],
      ['/api/billing', BILLING],
      ['/api/orders', ORDERS],
    ] as const) {
      assert.deepEqual(verdict(await browser.fetch(path)), [200, audience])
      clock.advance(300_000)
    }
  }
  await browsers[0]!.open('/bff/login?returnUrl=/elsewhere')
  const keys = shop.cloakroom.config.session.keys.map((key) => key.toString('base64url'))
  assert.deepEqual([provider.counters.reuseDetected, provider.violations], [0, []])
  return { redis, provider, browsers, wire, shop, keys }
}

/** What one of the ids opens the value to, whatever it is said to be. */
function opened(sealing: Sealing, value: string, ids: readonly string[]): string | undefined {
  const purposes = ids.flatMap((id): SealedPurpose[] =>
    KINDS.flatMap((kind) =>
      [undefined, 'orders', 'billing'].map((name) => ({ id, kind, ...(name && { name }) })),
    ),
  )
  for (const purpose of purposes) {
    const text = sealing.open(purpose, value)
    if (text !== undefined) return text
  }
  return undefined
}

/** The id that a session cookie carries signed; a login cookie's value is the id itself. */
function sessionIdOf(cookie: string): string {
  return /^s:([^.]+)\./.exec(decodeURIComponent(cookie))?.[1] ?? cookie
}

function codeVerifiers(provider: RotatingProvider): string[] {
  return provider
    .tokenRequests()
    .flatMap(({ form }) => form.filter(([name]) => name === 'code_verifier').map(([, value]) => value))
}

/** Redis' own MONITOR: every command with its arguments, as a tracing tool would see it. */
async function watchCommands(t: Scope, redis: TestRedis): Promise<() => string> {
  const socket = connect(redis.port, '127.0.0.1')
  t.after(() => socket.destroy())
  let text = ''
  socket.setEncoding('latin1').on('data', (chunk: string) => {
    text += chunk
  })
  socket.on('error', () => undefined)
  socket.write('MONITOR\r\n')
  await eventually('MONITOR is on', () => text.startsWith('+OK'))
  return () => text
}
