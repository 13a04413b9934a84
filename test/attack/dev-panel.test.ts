import assert from 'node:assert/strict'
import { request } from 'node:http'
import { after, before, describe, test } from 'node:test'
import { createDevProject, type DevProject, type RunningDev, signInAs, startDev } from '../kit/dev-server.ts'

describe('cloakroom dev, attacked by other pages of the same browser', () => {
  let project: DevProject
  let dev: RunningDev

  before(async () => {
    project = await createDevProject()
    dev = await startDev(project)
  })
  after(async () => {
    await dev?.server.close()
    await project?.close()
  })

  /** Sends a request with headers as they are, Host included; resolves with status and body. */
  const send = (
    base: string,
    path: string,
    options: { method?: string; headers?: object; body?: string } = {},
  ) =>
    new Promise<{ status: number | undefined; body: string; headers: object }>((resolve, reject) => {
      const { method = 'GET', headers = {}, body } = options
      const sent = request(new URL(path, base), { method, headers: { ...headers } }, async (res) => {
        let text = ''
        for await (const chunk of res) text += chunk
        resolve({ status: res.statusCode, body: text, headers: res.headers })
      })
      sent.on('error', reject)
      sent.end(body)
    })
  const DOWN = '/api/switches/provider-down'
  const isProviderDown = async () =>
    JSON.parse((await send(dev.server.panelUrl, '/api/state')).body).isProviderDown

  for (const [what, headers] of [
    ['without the CSRF header', {}],
    ['of another site', { 'x-csrf': '1', origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' }],
    ['of another port', { 'x-csrf': '1', origin: 'http://127.0.0.1:9', 'sec-fetch-site': 'same-site' }],
    ['of a sandboxed frame', { 'x-csrf': '1', origin: 'null' }],
    ['with Fetch Metadata alone', { 'x-csrf': '1', 'sec-fetch-site': 'cross-site' }],
    ['by a name that was made to point here', { 'x-csrf': '1', host: 'evil.example:8081' }],
  ] as const)
    test(`a switch is not changed by a POST ${what}`, async () => {
      const { status } = await send(dev.server.panelUrl, DOWN, {
        method: 'POST',
        headers,
        body: '{"on":true}',
      })
      assert.ok(status === 403 || status === 421, String(status))
      assert.equal(await isProviderDown(), false)
    })

  test('no method but POST changes a switch, and no GET of the panel changes anything', async () => {
    for (const method of ['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS'])
      assert.equal(
        (await send(dev.server.panelUrl, `${DOWN}?on=true`, { method, headers: { 'x-csrf': '1' } })).status,
        405,
      )
    assert.equal(await isProviderDown(), false)
  })

  test('no answer of the panel lets another origin read it or a page frame it', async () => {
    const { headers } = await send(dev.server.panelUrl, '/')
    const { headers: preflight } = await send(dev.server.panelUrl, DOWN, {
      method: 'OPTIONS',
      headers: { origin: dev.server.publicUrl, 'access-control-request-method': 'POST' },
    })
    for (const one of [headers, preflight] as Record<string, string>[]) {
      assert.equal(one['access-control-allow-origin'], undefined)
      assert.match(one['content-security-policy'] ?? '', /frame-ancestors 'none'/)
      assert.equal(one['cross-origin-resource-policy'], 'same-origin')
    }
  })

  test('a request is refused with the field, the value and the cure', async () => {
    for (const [path, body, detail] of [
      ['/api/switches/sign-in', '{"person":"eve"}', /person "eve" is not known: use one of ada, grace, alan/],
      [
        '/api/switches/idle',
        '{"seconds":0}',
        /seconds must be a number from 1 to 86400, e\.g\. 10 \(got 0\)/,
      ],
      ['/api/switches/sign-in', '{"person":"ada","returnUrl":"//evil.example"}', /returnUrl must be a path/],
      ['/api/switches/reject-token', '{"path":"/nope"}', /path "\/nope" is no API: use one of \/api\/orders/],
      ['/api/switches/fly', '{}', /no switch "fly": use one of sign-in/],
      ['/api/switches/idle', '[1]', /the body must be a JSON object/],
      ['/api/switches/idle', `{"a":"${'x'.repeat(5000)}"}`, /longer than 4096 bytes/],
    ] as const) {
      const answer = await send(dev.server.panelUrl, path, {
        method: 'POST',
        headers: { 'x-csrf': '1' },
        body,
      })
      assert.equal(answer.status, 400)
      assert.match(JSON.parse(answer.body).detail, detail)
    }
  })

  test('a ticket signs in once, and a made-up one not at all', async () => {
    const browser = dev.browser()
    await signInAs(dev, browser, 'ada')
    const used = browser.exchanges.find(({ url }) => url.searchParams.has('login_hint'))!.url
    for (const hint of [
      used.searchParams.get('login_hint')!,
      'cloakroom-dev.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA',
      'grace',
    ]) {
      const query = new URLSearchParams({ returnUrl: '/', login_hint: hint })
      const page = await dev.browser().navigate(`${dev.server.publicUrl}/bff/login?${query}`)
      assert.match(page.body, /or be somebody else/)
    }
  })

  test("the provider's pages take no form that another site made", async () => {
    const browser = dev.browser()
    const page = await browser.navigate(`${dev.server.publicUrl}/bff/login?returnUrl=/`)
    for (const [body, headers] of [
      ['person=grace', {}],
      ['person=grace&form=AAAAAAAAAAAAAAAAAAAAAA', {}],
      [
        `person=grace&form=${/name="form" value="([^"]+)"/.exec(page.body)?.[1]}`,
        { 'sec-fetch-site': 'cross-site' },
      ],
    ] as const) {
      const answer = await send(page.url.origin, page.url.pathname + page.url.search, {
        ...{ method: 'POST', body },
        headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
      })
      assert.equal(answer.status, 400)
      assert.equal((answer.headers as Record<string, unknown>)['set-cookie'], undefined)
    }
  })

  test('the provider sends no code to an address that is not registered, and answers to its own Host alone', async () => {
    const browser = dev.browser()
    const page = await browser.navigate(`${dev.server.publicUrl}/bff/login?returnUrl=/`)
    const elsewhere = new URL(page.url)
    elsewhere.searchParams.set('redirect_uri', 'https://evil.example/callback')
    assert.equal((await send(page.url.origin, elsewhere.pathname + elsewhere.search)).status, 400)
    const { status } = await send(page.url.origin, '/jwks', { headers: { host: 'evil.example' } })
    assert.equal(status, 421)
  })

  test('Cloakroom itself is not reached by a name that was made to point here', async () => {
    const { status } = await send(dev.server.publicUrl, '/api/orders', { headers: { host: 'evil.example' } })
    assert.equal(status, 421)
  })
})
