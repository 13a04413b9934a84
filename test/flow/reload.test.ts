import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { WebSocket, WebSocketServer } from 'ws'
import { suiteScope } from '../kit/attack/fleet.ts'
import type { Scope } from '../kit/attack/sign-in.ts'
import { type Browser, createBrowser } from '../kit/browsers/browser.ts'
import { type ConfigData, sessionKey } from '../kit/config/cloakroom-config.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { type Replica, startReplica, writeReplicaConfig } from '../kit/replica.ts'
import { eventually } from '../kit/shops/deadline.ts'
import { startUpstream } from '../kit/upstream/upstream.ts'

const APP = 'https://app.example.test'

/** One process on one config file, with what an operator can see of it. */
async function setUp(t: Scope, changes: ConfigData = {}) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const api = await startUpstream()
  t.after(() => api.close())
  const config = {
    publicUrl: APP,
    provider: { ...provider.settings },
    resources: { orders: { resource: 'https://orders.test' } },
    routes: [
      { path: '/api/orders', id: 'orders', upstream: api.url, resource: 'orders' },
      { path: '/', id: 'spa', upstream: api.url, auth: 'anonymous' },
    ] as ConfigData[],
    ...changes,
  }
  const file = await writeReplicaConfig(config)
  t.after(() => file.remove())
  const replica = await startReplica({ configFile: file.file })
  t.after(() => replica.stop('SIGKILL'))
  const someone = () => {
    const browser = createBrowser({ origin: APP, connect: { [APP]: replica.listenUrl } })
    t.after(() => browser.close())
    return browser
  }
  const logged = (text: string) => replica.stdout.filter((line) => line.includes(text)).length
  async function reloaded(outcome = 'the configuration was read again'): Promise<void> {
    const before = logged(outcome)
    replica.signal('SIGHUP')
    await eventually(outcome, () => logged(outcome) > before)
  }
  return { provider, api, config, file, replica, browser: someone(), someone, logged, reloaded }
}

async function metric(replica: Replica, start: string): Promise<string | undefined> {
  const text = await (await fetch(`${replica.adminUrl}/metrics`)).text()
  return text.split('\n').find((line) => line.startsWith(start))
}

async function statusOf(browser: Browser, path: string): Promise<number> {
  return (await browser.fetch(path)).status
}

const withRoute = (config: { routes: ConfigData[] }, route: ConfigData) => ({
  ...config,
  routes: [...config.routes, route],
})

test('a changed file is noticed without a signal, and so is a changed secret', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'reload-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  const key = join(folder, 'key')
  await writeFile(key, sessionKey())
  const session = { keys: [{ file: key }] }
  const { api, config, file, browser, logged } = await setUp(t, { session })
  await browser.signIn()
  await file.rewrite(
    withRoute({ ...config, session } as typeof config, { path: '/api/new', upstream: api.url }),
  )
  await eventually('the file is noticed', () => logged('the configuration was read again') === 1)
  assert.equal(await statusOf(browser, '/api/new'), 200)
  await writeFile(key, sessionKey())
  await eventually('the key is noticed', () => logged('the configuration was read again') === 2)
  assert.equal(await statusOf(browser, '/bff/user'), 401)
})

const REFUSED: [
  what: string,
  text: (config: ConfigData & { routes: ConfigData[] }) => string,
  cure: RegExp,
][] = [
  ['no YAML', () => 'routes: [', /cloakroom\.yaml:1:/],
  ['half a file', (config) => JSON.stringify(config, undefined, 2).slice(0, 300), /cloakroom\.yaml:/],
  ['an empty file', () => '', /the file is empty/],
  [
    'a route twice',
    (config) => JSON.stringify({ ...config, routes: [...config.routes, config.routes[0]] }),
    /routes\[2\]/,
  ],
  [
    'an unknown resource',
    (config) => JSON.stringify(withRoute(config, { path: '/x', upstream: 'http://x', resource: 'nope' })),
    /routes\[2\]\.resource.*nope/,
  ],
  [
    'a test of its own that it breaks',
    (config) => JSON.stringify({ ...config, tests: [{ request: 'GET /', expect: { route: 'orders' } }] }),
    /tests\[0\]/,
  ],
]

describe('a process that reads its file again', () => {
  const scope = suiteScope()
  let shared: Awaited<ReturnType<typeof setUp>>
  let isAsBefore = true

  // One for them all, because a start costs more than most of them.
  before(async () => {
    shared = await setUp(scope)
  })

  /** The file and what runs are as at the start, and somebody new has signed in. */
  async function asBefore(): Promise<Browser> {
    if (!isAsBefore) {
      await shared.file.rewrite(shared.config)
      await shared.reloaded()
    }
    isAsBefore = false
    const browser = shared.someone()
    await browser.signIn()
    return browser
  }

  test('SIGHUP takes a new route over; who is signed in stays so, and nothing under way is cut', async (t) => {
    const { api, config, file, replica, reloaded } = shared
    const browser = await asBefore()
    api.answer.delayMs = 1_500
    const slow = browser.clone()
    t.after(() => slow.close())
    const before = api.requests.length
    const underWay = slow.fetch('/api/orders/slow')
    await eventually('the slow request is at the API', () => api.requests.length > before)
    delete api.answer.delayMs
    const headers = { 'x-tier': 'gold' }
    await file.rewrite(withRoute(config, { path: '/api/new', upstream: api.url, methods: ['PUT'], headers }))
    const spoof = async () =>
      (await browser.fetch('/open', { headers: { X_Tier: 'evil' } })).json().headers as Record<
        string,
        unknown
      >
    assert.equal((await spoof()).x_tier, 'evil')
    await reloaded()
    assert.equal(
      (await spoof()).x_tier,
      undefined,
      "a header that a new route adds is no longer the client's",
    )
    assert.equal(await statusOf(browser, '/api/new'), 405)
    assert.equal(await statusOf(browser, '/api/orders'), 200)
    assert.equal((await underWay).status, 200)
    assert.equal(
      await metric(replica, 'cloakroom_config_reloads_total'),
      'cloakroom_config_reloads_total{outcome="applied"} 1',
    )
  })

  test('a bad file is refused whole and loudly, and the one before runs on; the metric says whether what runs is what the file says', async () => {
    const { config, file, replica, logged, reloaded } = shared
    const browser = await asBefore()
    const whole = JSON.parse(await readFile(file.file, 'utf8')) as Parameters<(typeof REFUSED)[0][1]>[0]
    for (const [what, textOf, cure] of REFUSED) {
      const before = replica.stdout.length
      const refused = logged('is refused')
      await writeFile(file.file, textOf(whole))
      await reloaded('the new configuration is refused; the one before runs on')
      const line = replica.stdout.slice(before).find((text) => text.includes('is refused'))
      const { problems, count } = JSON.parse(line ?? '{}') as {
        problems: { line: number; path: string; message: string }[]
        count: number
      }
      assert.equal(problems.length, count)
      const audited = replica.stdout
        .slice(before)
        .map((text) => JSON.parse(text))
        .find(({ action }) => action === 'config_reloaded')
      assert.deepEqual(
        [audited?.outcome, audited?.reason, audited?.count],
        ['refused', 'SIGHUP', count],
        what,
      )
      assert.match(
        problems.map(({ line, path, message }) => `cloakroom.yaml:${line}: ${path} ${message}`).join('\n'),
        cure,
      )
      assert.ok(logged('is refused') > refused, what)
      assert.equal(await statusOf(browser, '/api/orders'), 200, what)
    }
    assert.equal(await metric(replica, 'cloakroom_config_current'), 'cloakroom_config_current 0')
    await file.rewrite(config)
    await reloaded()
    assert.equal(await metric(replica, 'cloakroom_config_current'), 'cloakroom_config_current 1')

    // The same process goes on: what follows is no refusal, and costs no further start.
    for (const waiting of [
      { limits: { connections: 9 } },
      { session: { store: { type: 'redis', url: 'redis://127.0.0.1:1' } } },
    ]) {
      await file.rewrite({ ...config, ...waiting })
      await reloaded()
      assert.match(replica.stdout.at(-1) ?? '', /in use only after a restart/)
      assert.equal(await metric(replica, 'cloakroom_config_current'), 'cloakroom_config_current 0')
      // Read again as it is: what waits waits on.
      await reloaded()
      assert.equal(await metric(replica, 'cloakroom_config_current'), 'cloakroom_config_current 0')
    }
    const byName = () => ask(`${replica.adminUrl}/livez`, { host: 'metrics.example.test' })
    assert.equal(await byName(), 421)
    await file.rewrite({ ...config, admin: { hosts: ['metrics.example.test'] } })
    await reloaded()
    assert.equal(await metric(replica, 'cloakroom_config_current'), 'cloakroom_config_current 1')
    assert.equal(await byName(), 200)
  })

  test('under load fifty reloads drop no request', async () => {
    const { config, file, replica, logged } = shared
    const browser = await asBefore()
    let isOver = false
    let answered = 0
    const failures: unknown[] = []
    const headers = { host: new URL(APP).host, cookie: browser.cookieHeader(), 'x-csrf': '1' }
    const asking = Array.from({ length: 8 }, async () => {
      while (!isOver) {
        await ask(`${replica.listenUrl}/api/orders`, headers).then(
          (status) => status === 200 || failures.push(status),
          (error) => failures.push(error),
        )
        answered += 1
      }
    })
    for (let reloads = 1; reloads <= 50; reloads += 1) {
      if (reloads % 10 === 0)
        await file.rewrite(withRoute(config, { path: `/new${reloads}`, upstream: 'http://x' }))
      const before = logged('was read again')
      const until = answered + 8
      replica.signal('SIGHUP')
      await eventually('a reload', () => logged('was read again') > before)
      await eventually('requests go on', () => answered > until)
    }
    isOver = true
    await Promise.all(asking)
    assert.deepEqual(failures, [])
  })

  test('many signals at once are one reload, and one in the drain changes nothing', async () => {
    const { api, replica, logged, provider } = shared
    const browser = await asBefore()
    const discoveries = () => provider.requests.filter(({ path }) => path.includes('.well-known')).length
    const [before, reloads] = [discoveries(), logged('was read again')]
    for (let signals = 0; signals < 200; signals += 1) replica.signal('SIGHUP')
    await eventually('a reload', () => logged('was read again') > reloads)
    assert.equal(await statusOf(browser, '/api/orders'), 200)
    assert.ok(discoveries() - before < 20, `${discoveries() - before} discoveries`)
    api.answer.delayMs = 1_000
    const asked = api.requests.length
    const underWay = browser.fetch('/api/orders/slow')
    await eventually('the slow request is at the API', () => api.requests.length > asked)
    replica.signal('SIGTERM')
    await eventually('the drain', () => logged('draining') === 1)
    replica.signal('SIGHUP')
    assert.equal((await underWay).status, 200)
    assert.deepEqual(await replica.exited, { code: 0, signal: null })
  })
})

test('a mounted ConfigMap that swaps its link is one change, applied whole', async (t) => {
  const { api, config, file, browser, replica, logged } = await setUp(t)
  const whole = JSON.parse(await readFile(file.file, 'utf8')) as ConfigData
  await replica.stop()
  const folder = await mkdtemp(join(tmpdir(), 'reload-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  const version = async (name: string, text: ConfigData) => {
    await mkdir(join(folder, name))
    await writeFile(join(folder, name, 'cloakroom.yaml'), JSON.stringify(text))
  }
  const { routes } = withRoute(config, { path: '/api/new', upstream: api.url, methods: ['PUT'] })
  await version('..1', whole)
  await version('..2', { ...whole, routes })
  await symlink('..1', join(folder, '..data'))
  await symlink(join('..data', 'cloakroom.yaml'), join(folder, 'cloakroom.yaml'))
  const mounted = await startReplica({ configFile: join(folder, 'cloakroom.yaml') })
  t.after(() => mounted.stop('SIGKILL'))
  browser.connectTo(APP, mounted.listenUrl)
  assert.equal(logged('read again'), 0)
  await browser.signIn()
  assert.equal(await statusOf(browser, '/api/new'), 200)
  await symlink('..2', join(folder, '..data_tmp'))
  await rename(join(folder, '..data_tmp'), join(folder, '..data'))
  await eventually('the swap is noticed', () =>
    mounted.stdout.some((line) => line.includes('was read again')),
  )
  assert.equal(await statusOf(browser, '/api/new'), 405)
})

test('streams and WebSockets outlive a reload, and end with the process', async (t) => {
  const sockets = new WebSocketServer({ noServer: true })
  sockets.on('connection', (socket) => socket.on('message', (text) => socket.send(`echo ${text}`)))
  const { api, config, file, browser, replica, reloaded } = await setUp(t, {
    limits: { webSocketsPerSession: 1 },
  })
  api.server.on('upgrade', (req, socket, head) =>
    sockets.handleUpgrade(req, socket, head, (ws) => sockets.emit('connection', ws, req)),
  )
  const served = withRoute(config, { path: '/ws', id: 'ws', upstream: api.url, websocket: true })
  await file.rewrite(served)
  await reloaded()
  await browser.signIn()
  const socket = new WebSocket(`${replica.listenUrl.replace('http', 'ws')}/ws`, {
    headers: { host: new URL(APP).host, origin: APP, cookie: browser.cookieHeader() },
  })
  await once(socket, 'open')
  await reloaded()
  const handshake = { 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==', 'sec-websocket-version': '13' }
  const upgrade = { ...handshake, connection: 'upgrade', upgrade: 'websocket', host: new URL(APP).host }
  const another = { ...upgrade, origin: APP, cookie: browser.cookieHeader() }
  assert.equal(await ask(`${replica.listenUrl}/ws`, another), 429, 'they count whatever they began under')
  await file.rewrite(config)
  await reloaded()
  socket.send('still there')
  const [text] = await once(socket, 'message')
  assert.equal(String(text), 'echo still there')
  // The route is gone for requests that come now.
  assert.equal((await browser.fetch('/ws')).json().path, '/ws')
  const closed = once(socket, 'close')
  assert.deepEqual(await replica.stop(), { code: 0, signal: null })
  await closed
})

function ask(url: string, headers: Record<string, string>): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    request(url, { headers }, (answer) => {
      answer.resume().on('end', () => resolve(answer.statusCode))
    })
      .on('error', reject)
      .end()
  })
}
