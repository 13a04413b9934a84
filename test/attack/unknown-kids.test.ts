import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { callbackOf, type Scope, setUp } from '../kit/attack/sign-in.ts'
import { sendJson } from '../kit/local-server.ts'
import type { RotatingProvider } from '../kit/provider/rotating-provider.ts'

const FLOOD = 40

/** A provider whose ID tokens are signed with an unknown key, under another name each time. */
async function flooded(t: Scope) {
  const setup = await setUp(t)
  const { privateKey } = await generateKeyPair('RS256')
  let made = 0
  setup.provider.control.forgeIdToken = (claims) =>
    new SignJWT(claims).setProtectedHeader({ alg: 'RS256', kid: `unknown-${made++}` }).sign(privateKey)
  return {
    ...setup,
    /** So many sign-ins that come back at the same time, each in a browser of its own; gives the statuses. */
    async flood(): Promise<number[]> {
      const callbacks = await Promise.all(
        Array.from({ length: FLOOD }, async () => {
          const browser = setup.cloakroom.browser()
          return { browser, callback: await callbackOf({ browser }) }
        }),
      )
      const answers = callbacks.map(({ browser, callback }) =>
        browser.fetch(callback.pathname + callback.search),
      )
      return (await Promise.all(answers)).map(({ status }) => status)
    },
  }
}

function keyFetches({ requests }: RotatingProvider): number {
  return requests.filter(({ path }) => path === '/jwks').length
}

describe('a flood of ID tokens under unknown kids', () => {
  test('fetches the keys once when none are known yet', async (t) => {
    const { provider, flood } = await flooded(t)
    assert.deepEqual(new Set(await flood()), new Set([400]))
    assert.equal(keyFetches(provider), 1)
    assert.deepEqual(new Set(await flood()), new Set([400]))
    assert.equal(keyFetches(provider), 1)
  })

  test('fetches them once more while the known keys are young, because one of the kids might be new', async (t) => {
    const { provider, flood, browser } = await flooded(t)
    const { forgeIdToken } = provider.control
    delete provider.control.forgeIdToken
    await browser.signIn()
    Object.assign(provider.control, { forgeIdToken })
    assert.deepEqual(new Set(await flood()), new Set([400]))
    assert.equal(keyFetches(provider), 2)
    assert.deepEqual(new Set(await flood()), new Set([400]))
    assert.equal(keyFetches(provider), 2)
    delete provider.control.forgeIdToken
    const another = browser.clone()
    await another.signIn()
    assert.equal((await another.fetch('/bff/user')).status, 200)
  })

  test('fetches them once when they are a minute old', async (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: Date.now() })
    const { provider, flood } = await flooded(t)
    await flood()
    t.mock.timers.setTime(Date.now() + 61_000)
    assert.deepEqual(new Set(await flood()), new Set([400]))
    assert.equal(keyFetches(provider), 2)
    assert.deepEqual(new Set(await flood()), new Set([400]))
    assert.equal(keyFetches(provider), 2)
  })

  test('asks a key endpoint that is away once, and sign-in works soon after it is back', async (t) => {
    const { provider, flood, browser, advance } = await flooded(t)
    provider.control.intercept = ({ path }, res) => {
      if (path !== '/jwks') return false
      sendJson(res, 503, {})
      return true
    }
    assert.deepEqual(new Set(await flood()), new Set([503]))
    assert.deepEqual(new Set(await flood()), new Set([503]))
    assert.equal(keyFetches(provider), 1)
    delete provider.control.intercept
    delete provider.control.forgeIdToken
    advance(30_000)
    await browser.signIn()
    assert.equal((await browser.fetch('/bff/user')).status, 200)
  })
})

describe('a change of the signing key', () => {
  test('keeps no user from signing in, not for a moment, and a refreshed ID token is verified, too', async (t) => {
    const control = { idTokenOnRefresh: true }
    const { provider, browser, cloakroom, advance } = await setUp(t, { provider: { control } })
    await browser.signIn()
    await provider.signer.rotateKey()
    const another = cloakroom.browser()
    await another.signIn()
    assert.equal((await another.fetch('/bff/user')).status, 200)
    await provider.signer.rotateKey()
    advance(301_000)
    assert.equal((await browser.fetch('/api/orders')).status, 200)
    assert.equal(keyFetches(provider), 3)
    const metrics = await (await fetch(`${cloakroom.adminUrl}/metrics`)).text()
    assert.doesNotMatch(metrics, /id_token_ignored"\} [1-9]/)
  })

  test('under the old kid, in a set that holds keys twice and keys for other things', async (t) => {
    const { provider, browser, cloakroom } = await setUp(t)
    await browser.signIn()
    const { privateKey, publicKey } = await generateKeyPair('RS256')
    const { kid } = provider.signer.jwks().keys[0]!
    const jwk = { ...(await exportJWK(publicKey)), kid }
    provider.control.intercept = ({ path }, res) => {
      if (path !== '/jwks') return false
      const others = [{ ...jwk, use: 'enc' }, { kty: 'XYZ', kid }, ...provider.signer.jwks().keys]
      sendJson(res, 200, { keys: [...others, jwk, jwk] })
      return true
    }
    provider.control.forgeIdToken = (claims) =>
      new SignJWT(claims).setProtectedHeader({ alg: 'RS256', kid: kid! }).sign(privateKey)
    const another = cloakroom.browser()
    await another.signIn()
    assert.equal((await another.fetch('/bff/user')).status, 200)
  })
})
