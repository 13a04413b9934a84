import assert from 'node:assert/strict'
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import { SignJWT } from 'jose'
import { createDemoApi, type DemoOperation } from '../../../src/demo/demo-api.ts'
import { createFiles } from '../../../src/demo/files.ts'
import { createInvoices } from '../../../src/demo/invoices.ts'
import { listenOnLoopback } from '../../../src/demo/loopback-server.ts'
import { createOrders } from '../../../src/demo/orders.ts'

const ISSUER = 'https://id.example.com'
const AUDIENCE = 'https://orders.example.com'
const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })

type TokenChanges = {
  readonly aud?: string
  readonly iss?: string
  readonly scope?: string
  readonly expiresIn?: string
  readonly key?: KeyObject
  readonly typ?: string
  readonly sub?: string
}

function accessToken(changes: TokenChanges = {}): Promise<string> {
  return new SignJWT({ scope: changes.scope ?? 'orders.read', client_id: 'app' })
    .setProtectedHeader({ alg: 'RS256', kid: 'k1', typ: changes.typ ?? 'at+jwt' })
    .setIssuer(changes.iss ?? ISSUER)
    .setAudience(changes.aud ?? AUDIENCE)
    .setSubject(changes.sub ?? 'ada')
    .setIssuedAt()
    .setExpirationTime(changes.expiresIn ?? '1m')
    .sign(changes.key ?? privateKey)
}

async function startApi(t: TestContext, operations: readonly DemoOperation[] = []) {
  const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'k1', alg: 'RS256', use: 'sig' }
  const issuer = await listenOnLoopback(() => (_req, res) => res.end(JSON.stringify({ keys: [jwk] })))
  const api = await listenOnLoopback(() =>
    createDemoApi({
      issuer: ISSUER,
      jwksUrl: `${issuer.origin}/jwks`,
      audience: AUDIENCE,
      requiredScope: 'orders.read',
      content: () => ({ orders: [1] }),
      operations,
    }),
  )
  t.after(() => Promise.all([api.close(), issuer.close()]))
  return (token?: string, path = '/orders?x=1', { headers, ...init }: RequestInit = {}) =>
    fetch(`${api.origin}${path}`, {
      ...init,
      headers: {
        ...{ 'x-note': 'n', ...(headers as Record<string, string>) },
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
      },
    })
}

type Call = Awaited<ReturnType<typeof startApi>>

// biome-ignore lint/suspicious/noExplicitAny: tests read members of many different answers
async function json(call: ReturnType<Call>): Promise<{ status: number; body: any }> {
  const response = await call
  return { status: response.status, body: await response.json() }
}

describe('a demo API', () => {
  it('answers with its content, the claims and the names of the headers, never the token', async (t) => {
    const call = await startApi(t)
    const token = await accessToken()
    const text = await (await call(token)).text()
    const { orders, received } = JSON.parse(text)
    assert.deepEqual(orders, [1])
    assert.equal(received.path, '/orders?x=1')
    assert.equal(received.claims.aud, AUDIENCE)
    assert.equal(received.claims.sub, 'ada')
    assert.ok(received.headerNames.includes('authorization') && received.headerNames.includes('x-note'))
    assert.ok(!text.includes(token))
  })

  it('refuses a request without a token, and names no error then', async (t) => {
    const response = await (await startApi(t))()
    assert.equal(response.status, 401)
    assert.equal(response.headers.get('www-authenticate'), 'Bearer')
    assert.equal(response.headers.get('content-type'), 'application/problem+json')
  })

  const { privateKey: foreignKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const refused: readonly [string, TokenChanges][] = [
    ['for another audience', { aud: 'https://billing.example.com' }],
    ['of another issuer', { iss: 'https://evil.example.com' }],
    ['that expired', { expiresIn: '-1s' }],
    ['signed with a foreign key', { key: foreignKey }],
    ['that is an ID token', { typ: 'JWT' }],
  ]
  for (const [what, changes] of refused) {
    it(`refuses a token ${what} as invalid_token`, async (t) => {
      const response = await (await startApi(t))(await accessToken(changes))
      assert.equal(response.status, 401)
      assert.match(response.headers.get('www-authenticate') ?? '', /^Bearer error="invalid_token"/)
    })
  }

  it('refuses a token without its scope as insufficient_scope', async (t) => {
    const response = await (await startApi(t))(await accessToken({ scope: 'other' }))
    assert.equal(response.status, 403)
    assert.match(response.headers.get('www-authenticate') ?? '', /error="insufficient_scope"/)
  })

  it('does nothing but its operations', async (t) => {
    const call = await startApi(t)
    const response = await call(await accessToken(), '/orders', { method: 'DELETE' })
    assert.equal(response.status, 405)
    assert.equal((await call(undefined, '/orders', { method: 'DELETE' })).status, 401)
  })

  it('refuses garbage without failing', async (t) => {
    assert.equal((await (await startApi(t))('not.a.jwt')).status, 401)
  })
})

describe('the orders API', () => {
  it('takes an order and lists it for the one who placed it', async (t) => {
    const { operations, content } = createOrders()
    const call = await startApi(t, operations)
    const placed = { method: 'POST', body: '{"item":" Fur hat ","quantity":2}' }
    const { status, body } = await json(call(await accessToken(), '/orders', placed))
    const { id, item, quantity } = body.order
    assert.deepEqual([status, item, quantity, body.received.claims.aud], [201, 'Fur hat', 2, AUDIENCE])
    const ids = (sub: string) => content({ sub }).orders.map((order) => order.id)
    assert.ok(ids('ada').includes(id) && !ids('grace').includes(id))
  })

  for (const body of [
    '',
    '{',
    '[]',
    'null',
    '{"item":"x"}',
    '{"item":"x","quantity":100}',
    '{"item":" ","quantity":1}',
  ]) {
    it(`refuses ${body || 'an empty body'} as an order`, async (t) => {
      const call = await startApi(t, createOrders().operations)
      assert.equal((await call(await accessToken(), '/orders', { method: 'POST', body })).status, 422)
    })
  }

  it('streams events, and those that were missed after the last event id', async (t) => {
    const call = await startApi(t, createOrders().operations)
    const token = await accessToken()
    const first = await firstEvents(await call(token, '/orders/events'), 1)
    assert.match(first, /^retry: 1000\nevent: hello\ndata: \{"resumedAfter":null/)
    const seen = Number(/^id: (\d+)$/m.exec(first)?.[1])
    const headers = { 'last-event-id': String(seen - 3) }
    const resumed = await firstEvents(await call(token, '/orders/events', { headers }), 3)
    assert.match(resumed, new RegExp(`"resumedAfter":${seen - 3},`))
    const ids = [...resumed.matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id))
    assert.deepEqual(ids.slice(0, 3), [seen - 2, seen - 1, seen])
  })

  for (const id of ['', 'x', '-1', '999999999999', '1']) {
    it(`begins anew after the event id ${JSON.stringify(id)}`, async (t) => {
      const call = await startApi(t, createOrders().operations)
      const headers = { 'last-event-id': id }
      const text = await firstEvents(await call(await accessToken(), '/orders/events', { headers }), 1)
      assert.match(text, /"resumedAfter":null/)
    })
  }
})

/** Reads until so many events have come, and closes. */
async function firstEvents(response: Response, count: number): Promise<string> {
  let text = ''
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
  while (text.split('event: order').length <= count) {
    const { value, done } = await reader.read()
    if (done) break
    text += value
  }
  await reader.cancel()
  return text
}

describe('the billing API', () => {
  it('takes a payment, and shows the invoice as paid to its owner', async (t) => {
    const { operations, content } = createInvoices()
    const call = await startApi(t, operations)
    const pay = (body: string) => json(call(accessTokenNow, '/payments', { method: 'POST', body }))
    const accessTokenNow = await accessToken()
    assert.equal((await pay('{"invoice":"INV-2216"}')).body.payment.amount, 11800)
    assert.equal((await pay('{"invoice":"INV-1"}')).status, 422)
    const status = (sub: string) => content({ sub }).invoices[1]?.status
    assert.deepEqual([status('ada'), status('grace')], ['paid', 'open'])
    assert.equal((await json(call(accessTokenNow, '/report'))).body.report.invoices, 3)
  })
})

describe('the files of the demo', () => {
  it('come back to their owner as they were, and to nobody else', async (t) => {
    const call = await startApi(t, createFiles())
    const [ada, grace] = [await accessToken(), await accessToken({ sub: 'grace' })]
    const headers = { 'x-file-name': encodeURIComponent('../Käse\r\n"*.txt') }
    const { status, body } = await json(call(ada, '/files', { method: 'POST', body: 'content', headers }))
    assert.deepEqual([status, body.file.name, body.file.size], [201, '..Käse"*.txt', 7])
    const path = `/files/${body.file.id}`
    const response = await call(ada, path)
    assert.equal(await response.text(), 'content')
    assert.equal(
      response.headers.get('content-disposition'),
      "attachment; filename*=UTF-8''..K%C3%A4se%22%2a.txt",
    )
    assert.equal(response.headers.get('content-type'), 'application/octet-stream')
    assert.equal((await call(grace, path)).status, 404)
    assert.deepEqual((await json(call(grace, '/files'))).body.files, [])
    assert.equal((await json(call(ada, '/files'))).body.files.length, 1)
  })

  it('are the last ten', async (t) => {
    const call = await startApi(t, createFiles())
    const token = await accessToken()
    for (const name of ['%', '1', '2', '3', '4', '5', '6', '7', '8', '9', '10'])
      await call(token, '/files', { method: 'POST', body: name, headers: { 'x-file-name': name } })
    const { files } = (await json(call(token, '/files'))).body
    assert.deepEqual([files.length, files[0].name, files.at(-1).name], [10, '10', '1'])
  })
})
