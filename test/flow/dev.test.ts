import assert from 'node:assert/strict'
import { once } from 'node:events'
import { statSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, beforeEach, describe, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { WebSocket, WebSocketServer } from 'ws'
import type { Browser } from '../kit/browsers/browser.ts'
import {
  createDevProject,
  DEV_AUDIENCES,
  type DevProject,
  type RunningDev,
  signInAs,
  startDev,
} from '../kit/dev-server.ts'

const ORDERS = '/api/orders'
const BILLING = '/api/billing'

/** Every text in plain data. */
function textsIn(value: unknown): string[] {
  if (typeof value === 'string') return [value]
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(textsIn) : []
}

for (const profile of ['plain', 'entra', 'keycloak', 'auth0', 'strict'])
  describe(`cloakroom dev --as ${profile}`, () => {
    let project: DevProject
    let dev: RunningDev
    let browser: Browser
    const panelSaid: string[] = []
    const call = async (path: string) => {
      const answer = await browser.fetch(path)
      return { status: answer.status, ...answer.json() }
    }

    before(async () => {
      project = await createDevProject()
      dev = await startDev(project, ['--as', profile])
      browser = dev.browser()
      await signInAs(dev, browser, 'ada')
    })
    after(async () => {
      await dev?.server.close()
      await project?.close()
    })

    test('signs a person in by the real flow, and gives each API a token of its own', async () => {
      const user = await browser.fetch('/bff/user')
      assert.deepEqual([user.json().sub, user.json().name], ['ada', 'Ada Lovelace'])
      for (const [path, audience] of [
        [ORDERS, DEV_AUDIENCES.orders],
        [BILLING, DEV_AUDIENCES.billing],
      ] as const) {
        const { status, aud, sub } = await call(path)
        assert.deepEqual([status, [aud].flat()[0], sub], [200, audience, 'ada'])
      }
    })

    test('tokens that are made to expire are refreshed, and the old ones are not used again', async () => {
      const before = await call(ORDERS)
      await dev.switches.expireTokens('ada')
      const next = await call(ORDERS)
      assert.equal(next.status, 200)
      assert.notEqual(next.id, before.id)
    })

    test('a role that is taken away is gone from claims and tokens with the next call, and comes back', async () => {
      await dev.switches.setRole('ada', 'admin', false)
      assert.equal((await call(ORDERS)).status, 200)
      assert.deepEqual((await browser.fetch('/bff/user')).json().roles, ['staff'])
      await dev.switches.reset()
      await dev.switches.expireTokens()
      await call(ORDERS)
      assert.deepEqual((await browser.fetch('/bff/user')).json().roles, ['admin', 'staff'])
    })

    test('an API that demands a second factor is answered after a step-up', async () => {
      await dev.switches.demandSecondFactor(true, ORDERS)
      const refused = await call(ORDERS)
      assert.deepEqual([refused.status, refused.code], [401, 'reauthentication_required'])
      const page = await browser.navigate(`${refused.login_url}&returnUrl=/`, { from: browser.origin })
      assert.match(page.body, /Is it you, Ada Lovelace\?/)
      await browser.submit(page)
      assert.equal((await call(ORDERS)).status, 200)
      await dev.switches.reset()
    })

    test('an API that rejects our tokens passes its own 401 on after one refresh', async () => {
      await dev.switches.rejectTokens(true, BILLING)
      const refused = await browser.fetch(BILLING)
      assert.equal(refused.status, 401)
      assert.equal((await call(ORDERS)).status, 200)
      await dev.switches.reset()
    })

    test('is somebody else at once, with a session of his own', async () => {
      await signInAs(dev, browser, 'grace')
      assert.equal((await call(ORDERS)).sub, 'grace')
    })

    test('sessions and refresh tokens survive a restart, in a file for its owner alone', async () => {
      await dev.server.close()
      assert.equal(statSync(project.stateFile.path).mode & 0o077, 0)
      dev = await startDev(project, ['--as', profile])
      assert.equal(dev.server.isContinued, true)
      assert.equal((await call(ORDERS)).sub, 'grace')
      await dev.switches.expireTokens()
      assert.equal((await call(BILLING)).sub, 'grace')
    })

    test('tells on the panel who is signed in, and each refresh in the live log', async () => {
      panelSaid.push(await (await fetch(`${dev.server.panelUrl}/api/state`)).text())
      assert.match(panelSaid[0]!, /"person":"grace"/)
      const log = await fetch(`${dev.server.panelUrl}/api/log`)
      for await (const chunk of log.body!.pipeThrough(new TextDecoderStream())) {
        panelSaid.push(chunk)
        if (/"what":"refresh"/.test(panelSaid.join(''))) break
      }
    })

    test('refresh tokens that are revoked end the session', async () => {
      await dev.switches.revokeTokens('grace')
      const refused = await call(ORDERS)
      assert.deepEqual(
        [refused.status, refused.code, refused.reason],
        [401, 'session_required', 'grant_ended'],
      )
    })

    test('no line of the log and no answer of the panel holds a token, a cookie or a code', async () => {
      await dev.server.close()
      const secrets = new Set<string>()
      const saved = project.stateFile.read()
      // Every token that the provider has given out, its key and the client's secret are in the file.
      for (const text of textsIn([saved?.provider.tokens, saved?.provider.signingKey.d, saved?.secrets]))
        if (/^(?:ey[\w-]+\.|rt_|0\.ARoA)|^[\w-]{43,}$/.test(text)) secrets.add(text)
      for (const { requestHeaders, url } of browser.exchanges)
        for (const text of [requestHeaders.cookie?.split('=').at(-1), url.searchParams.get('code')])
          if (text && text.length > 10) secrets.add(text)
      assert.ok(secrets.size > 5)
      const said = [...panelSaid, ...dev.logLines].join('\n')
      assert.ok(said.includes('refresh') && said.includes('grace'))
      for (const secret of secrets) assert.ok(!said.includes(secret), `told: ${secret.slice(0, 8)}…`)
    })
  })

describe('the switches of cloakroom dev', () => {
  const cleanUps: (() => unknown)[] = []
  let dev: RunningDev
  let browser: Browser
  let app: Server
  const handshakes: IncomingMessage[] = []
  const appUrl = () => `http://127.0.0.1:${(app.address() as AddressInfo).port}`
  const sessions = async () => {
    const state = await (await fetch(`${dev.server.panelUrl}/api/state`)).json()
    return (state as { sessions: { idleSeconds: number }[] }).sessions.map(({ idleSeconds }) => idleSeconds)
  }

  const until = async (isSo: () => Promise<boolean>) => {
    const end = performance.now() + 15_000
    while (performance.now() < end && !(await isSo())) await setTimeout(50)
    assert.ok(await isSo())
  }

  before(async () => {
    const scope = { after: (cleanUp: () => unknown) => void cleanUps.push(cleanUp) }
    const project = await createDevProject()
    scope.after(() => project.close())
    app = createServer((_req, res) => res.end('<h1>app</h1>'))
    new WebSocketServer({ server: app }).on('connection', (socket, req) => {
      handshakes.push(req)
      socket.on('message', (data) => socket.send(String(data)))
    })
    scope.after(() => app.close())
    await new Promise<void>((resolve) => app.listen(0, '127.0.0.1', resolve))
    dev = await startDev(project, ['--app', appUrl()])
    scope.after(() => dev.server.close())
    browser = dev.browser()
  })
  beforeEach(() => signInAs(dev, browser, 'ada'))
  after(async () => {
    for (const cleanUp of cleanUps.toReversed()) await cleanUp()
  })

  test('idle: the session ends in 10 s or as soon as is said, and a use takes that back', async () => {
    await dev.switches.idle()
    const [left] = await sessions()
    assert.ok(left! > 5 && left! <= 10, `${left} s`)
    await browser.fetch(ORDERS)
    assert.ok((await sessions())[0]! > 60)
    await dev.switches.idle(1, 'ada')
    await until(async () => (await sessions()).length === 0)
    const refused = await browser.fetch(ORDERS)
    assert.deepEqual([refused.status, refused.json().code], [401, 'session_required'])
  })

  test('provider-down: what needs a token waits, the session stays, and all goes on when it is up again', async () => {
    assert.equal((await browser.fetch(ORDERS)).status, 200)
    await dev.switches.providerDown()
    assert.equal((await browser.fetch(ORDERS)).status, 200, 'its token is good')
    await dev.switches.expireTokens('ada')
    const refused = await browser.fetch(ORDERS)
    assert.deepEqual([refused.status, refused.json().code], [503, 'provider_unavailable'])
    assert.equal((await browser.fetch('/bff/user')).status, 200)
    await dev.switches.providerDown(false)
    // As in production, it is asked again after a second or so.
    await until(async () => (await browser.fetch(ORDERS)).status === 200)
  })

  test('hot reload: the WebSocket of a development server passes, for one who is not signed in, with its own Host', async () => {
    const { publicUrl } = dev.server
    const socket = new WebSocket(`${publicUrl.replace('http', 'ws')}/?token=x`, 'vite-hmr', {
      origin: publicUrl,
    })
    await once(socket, 'open')
    assert.equal(socket.protocol, 'vite-hmr')
    const answer = once(socket, 'message')
    socket.send('{"type":"ping"}')
    assert.equal(String((await answer)[0]), '{"type":"ping"}')
    const { url, headers } = handshakes.at(-1)!
    assert.deepEqual([url, headers.host, headers.cookie], ['/?token=x', new URL(appUrl()).host, undefined])
    socket.terminate()
  })
})
