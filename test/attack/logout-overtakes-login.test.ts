import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { suiteScope } from '../kit/attack/fleet.ts'
import { type Browser, createBrowser } from '../kit/browsers/browser.ts'
import { type RunningCloakroom, startCloakroom } from '../kit/cloakroom.ts'
import { sessionKey } from '../kit/config/cloakroom-config.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { APP, type Scope } from '../kit/shops/shop.ts'
import { type HeldRedis, startHeldRedis } from '../kit/store/held-redis.ts'
import { skipWithoutRedis, startRedis } from '../kit/store/redis.ts'

/** Two replicas on one Redis, each behind an address that can hold its commands. */
async function startReplicas(t: Scope) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const redis = await startRedis()
  t.after(() => redis.stop())
  const keys = [sessionKey()]
  const start = async () => {
    const held = await startHeldRedis(Number(new URL(redis.url).port))
    const cloakroom = await startCloakroom({
      publicUrl: APP,
      provider: provider.settings,
      session: { store: { type: 'redis', url: held.url }, keys },
      resources: {},
      routes: [{ path: '/', upstream: 'http://127.0.0.1:9', auth: 'anonymous' }],
    })
    t.after(async () => {
      await cloakroom.close()
      held.close()
    })
    return { cloakroom, held }
  }
  return { provider, redis, a: await start(), b: await start() }
}

type Replicas = Awaited<ReturnType<typeof startReplicas>>
type Replica = { readonly cloakroom: RunningCloakroom; readonly held: HeldRedis }

let count = 0

/** Somebody who comes back from the provider with a code that is not redeemed yet. */
async function comingBack(t: Scope, { provider, a }: Replicas) {
  count += 1
  const [sub, sid] = [`ada-${count}`, `sid-${count}`]
  provider.control.user = sub
  provider.control.idTokenClaims = { sid }
  const begin = async () => {
    const browser = createBrowser({ origin: APP, connect: { [APP]: a.cloakroom.listenUrl } })
    t.after(() => browser.close())
    const login = await browser.open('/bff/login?returnUrl=/')
    const authorization = await fetch(String(login.headers.location), { redirect: 'manual' })
    const { pathname, search } = new URL(String(authorization.headers.get('location')))
    return { browser, callback: () => browser.fetch(pathname + search) }
  }
  return { ...(await begin()), sub, sid, begin }
}

/** Posts the token as the provider does, again while it is told that it may. */
async function backchannelLogout({ provider }: Replicas, { cloakroom }: Replica, claims: object) {
  const token = await provider.logoutToken({ ...claims })
  const send = () =>
    fetch(`${cloakroom.listenUrl}/bff/backchannel-logout`, {
      method: 'POST',
      headers: { host: new URL(APP).host },
      body: new URLSearchParams({ logout_token: token }),
    })
  await eventually('the logout is done', async () => {
    const { status } = await send()
    assert.ok(status === 200 || status === 503, `status ${status}`)
    return status === 200
  })
}

async function sessionsOf(browser: Browser, { a, b }: Replicas): Promise<number[]> {
  const answers = [a, b].map(({ cloakroom }) => browser.fetch('/bff/user', { via: cloakroom.listenUrl }))
  return (await Promise.all(answers)).map(({ status }) => status)
}

async function recordsIn({ redis }: Replicas): Promise<string[]> {
  return redis.cli('KEYS', 'cloakroom:{*')
}

describe('a logout that overtakes its login', { skip: skipWithoutRedis() }, () => {
  const scope = suiteScope()
  let replicas: Replicas | undefined
  const system = async () => (replicas ??= await startReplicas(scope))

  test('between the code and its redemption refuses the sign-in, by sid, by sub, and by both, whichever replica hears of it', async (t) => {
    const all = await system()
    for (const name of ['sid', 'sub', 'both'] as const) {
      for (const replica of [all.a, all.b]) {
        const { browser, sub, sid, callback } = await comingBack(t, all)
        const revoked = all.provider.revoked.length
        await backchannelLogout(all, replica, { sid: { sid }, sub: { sub }, both: { sub, sid } }[name])
        const answer = await callback()
        assert.deepEqual([answer.status, answer.json().code], [400, 'invalid_callback'], name)
        assert.equal(answer.json().reason, 'grant_ended')
        assert.deepEqual(await sessionsOf(browser, all), [401, 401])
        assert.equal(all.provider.revoked.length, revoked + 1, 'its refresh token is revoked')
      }
    }
    assert.deepEqual(await recordsIn(all), [])
  })

  test('while the code is redeemed refuses the sign-in', async (t) => {
    const all = await system()
    const { browser, sid, callback } = await comingBack(t, all)
    const { promise: logoutDone, resolve: done } = Promise.withResolvers<void>()
    let isAsked = false
    all.provider.control.intercept = async ({ path }) => {
      if (path !== '/token') return false
      isAsked = true
      await logoutDone
      return false
    }
    const coming = callback()
    await eventually('the code is redeemed', () => isAsked)
    await backchannelLogout(all, all.b, { sid })
    done()
    delete all.provider.control.intercept
    assert.equal((await coming).status, 400)
    assert.deepEqual(await sessionsOf(browser, all), [401, 401])
  })

  test('of another user, or of another session at the provider, refuses nothing; nor does one from before the sign-in', async (t) => {
    const all = await system()
    const { browser, sub, callback } = await comingBack(t, all)
    await backchannelLogout(all, all.b, { sub: 'somebody else' })
    await backchannelLogout(all, all.b, { sub, sid: 'another' })
    assert.equal((await callback()).status, 200)
    assert.deepEqual(await sessionsOf(browser, all), [200, 200])
    await backchannelLogout(all, all.b, { sub })
    assert.deepEqual(await sessionsOf(browser, all), [401, 401])
    all.provider.control.user = sub
    await browser.signIn()
    assert.deepEqual(await sessionsOf(browser, all), [200, 200])
    await browser.fetch('/bff/logout', { method: 'POST' })
  })

  test('in a session of the provider refuses whatever comes back from it later, even what began after it', async (t) => {
    const all = await system()
    const { sid, begin } = await comingBack(t, all)
    await backchannelLogout(all, all.b, { sid })
    // The provider tells of the end before it is through with it itself.
    const { browser, callback } = await begin()
    const answer = await callback()
    assert.deepEqual([answer.status, answer.json().reason], [400, 'grant_ended'])
    assert.deepEqual(await sessionsOf(browser, all), [401, 401])
  })

  test('leaves no session when a sign-in stands still before each of its commands', async (t) => {
    const all = await system()
    for (let pieces = 0; ; pieces += 1) {
      const { browser, sub, callback } = await comingBack(t, all)
      const hold = all.a.held.holdAfter(pieces)
      const coming = callback()
      await Promise.race([hold.begun, coming])
      const wasHeld = hold.isHolding()
      if (wasHeld) await backchannelLogout(all, all.b, { sub })
      hold.release()
      const { status } = await coming
      if (!wasHeld) {
        assert.equal(status, 200)
        assert.ok(pieces > 6, 'a sign-in is more than that')
        break
      }
      assert.ok([200, 400, 503].includes(status), `status ${status}`)
      assert.deepEqual(await sessionsOf(browser, all), [401, 401], `held after ${pieces}`)
    }
  })

  test('leaves no session when the logout stands still before each of its commands', async (t) => {
    const all = await system()
    for (let pieces = 0; ; pieces += 1) {
      const { browser, sub, callback } = await comingBack(t, all)
      const hold = all.b.held.holdAfter(pieces)
      const ending = backchannelLogout(all, all.b, { sub })
      await Promise.race([hold.begun, ending])
      const wasHeld = hold.isHolding()
      const { status } = await callback()
      hold.release()
      await ending
      if (wasHeld) assert.ok([200, 400].includes(status), `status ${status}`)
      assert.deepEqual(await sessionsOf(browser, all), [401, 401], `held after ${pieces}`)
      if (!wasHeld) {
        assert.equal(status, 400)
        assert.ok(pieces > 4, 'a logout is more than that')
        break
      }
    }
  })
})

describe('a logout token that two replicas get at the same time', { skip: skipWithoutRedis() }, () => {
  const scope = suiteScope()

  test('is good at one of them, and at neither afterwards', async () => {
    const all = await startReplicas(scope)
    for (let round = 0; round < 10; round += 1) {
      const token = await all.provider.logoutToken({ sub: `ada-${round}` })
      const send = ({ cloakroom }: Replica) =>
        fetch(`${cloakroom.listenUrl}/bff/backchannel-logout`, {
          method: 'POST',
          headers: { host: new URL(APP).host },
          body: new URLSearchParams({ logout_token: token }),
        }).then(({ status }) => status)
      const both = await Promise.all([send(all.a), send(all.b)])
      assert.deepEqual(both.sort(), [200, 400])
      assert.deepEqual(await Promise.all([send(all.a), send(all.b)]), [400, 400])
    }
  })
})
