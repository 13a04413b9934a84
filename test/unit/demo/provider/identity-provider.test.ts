import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { describe, it, type TestContext } from 'node:test'
import { listenOnLoopback } from '../../../../src/demo/loopback-server.ts'
import { createIdentityProvider } from '../../../../src/demo/provider/identity-provider.ts'
import type {
  IdentityProviderOptions,
  TokenRequest,
} from '../../../../src/demo/provider/identity-provider-options.ts'
import { createScriptedBrowser } from '../../../kit/browsers/scripted-browser.ts'

const A = 'https://a.example.com'
const B = 'https://b.example.com'
const APP = 'http://localhost:1'
const CALLBACK = `${APP}/bff/callback`
const VERIFIER = 'v'.repeat(43)
const CHALLENGE = createHash('sha256').update(VERIFIER).digest('base64url')

type Answer = Record<string, string> & { expires_in: number }

async function startProvider(t: TestContext, overrides: Partial<IdentityProviderOptions> = {}) {
  const tokenRequests: TokenRequest[] = []
  const server = await listenOnLoopback(
    (issuer) =>
      createIdentityProvider({
        issuer,
        clients: [
          {
            clientId: 'app',
            clientName: 'Test <App>',
            clientSecret: 'secret',
            authMethod: 'client_secret_post',
            redirectUris: [CALLBACK],
            postLogoutRedirectUris: [`${APP}/`],
          },
        ],
        resources: {
          [A]: { audience: A, scope: 'a.read', accessTokenTtlSeconds: 300 },
          [B]: { audience: 'billing', scope: 'b.read', accessTokenTtlSeconds: 60 },
        },
        onTokenRequest: (request) => tokenRequests.push(request),
        ...overrides,
      }).callback,
  )
  t.after(() => server.close())
  const browser = createScriptedBrowser({ stopAt: `${APP}/` })

  const authorizationUrl = (parameters: Record<string, string> = {}) => {
    const query = new URLSearchParams({
      client_id: 'app',
      response_type: 'code',
      redirect_uri: CALLBACK,
      scope: 'openid profile email offline_access a.read b.read',
      state: 's',
      code_challenge: CHALLENGE,
      code_challenge_method: 'S256',
      ...parameters,
    })
    for (const resource of [A, B]) query.append('resource', resource)
    return `${server.origin}/auth?${query}`
  }

  async function token(parameters: Record<string, string>): Promise<{ status: number; body: Answer }> {
    const body = new URLSearchParams({ client_id: 'app', client_secret: 'secret', ...parameters })
    const response = await fetch(`${server.origin}/token`, { method: 'POST', body })
    return { status: response.status, body: (await response.json()) as Answer }
  }

  const refresh = (refreshToken: string | undefined, resource: string, more: Record<string, string> = {}) =>
    token({ grant_type: 'refresh_token', refresh_token: refreshToken ?? '', resource, ...more })

  async function signIn(form: Record<string, string> = { person: 'ada' }, url = authorizationUrl()) {
    const page = await browser.visit(url)
    const arrived = page.url.startsWith(APP) ? page : await browser.visit(page.url, form)
    const code = new URL(arrived.url).searchParams.get('code')
    assert.ok(code, `no code in ${arrived.url} ${arrived.body}`)
    return (
      await token({
        grant_type: 'authorization_code',
        code,
        redirect_uri: CALLBACK,
        code_verifier: VERIFIER,
        resource: A,
      })
    ).body
  }

  return { issuer: server.origin, browser, authorizationUrl, token, refresh, signIn, tokenRequests }
}

function claims(jwt: string | undefined): Record<string, unknown> {
  return JSON.parse(Buffer.from(jwt?.split('.')[1] ?? '', 'base64url').toString())
}

describe('the identity provider', () => {
  it('signs Ada in and gives tokens for the resource named with the code', async (t) => {
    const { signIn, issuer } = await startProvider(t)
    const tokens = await signIn()
    const { aud, sub, scope, iss } = claims(tokens.access_token)
    assert.deepEqual({ aud, sub, scope, iss }, { aud: A, sub: 'ada', scope: 'a.read', iss: issuer })
    assert.equal(tokens.expires_in, 300)
    const { name, email, title } = claims(tokens.id_token)
    assert.deepEqual(
      { name, email, title },
      { name: 'Ada Lovelace', email: 'ada@example.com', title: 'Analyst' },
    )
  })

  it('gives an access token for another resource, and a new refresh token, with every refresh', async (t) => {
    const { signIn, refresh } = await startProvider(t)
    const first = await signIn()
    const { body: second } = await refresh(first.refresh_token, B, { scope: 'b.read' })
    assert.equal(claims(second.access_token).aud, 'billing')
    assert.equal(second.expires_in, 60)
    assert.notEqual(second.refresh_token, first.refresh_token)
    const { body: third } = await refresh(second.refresh_token, A)
    assert.equal(claims(third.access_token).aud, A)
  })

  it('keeps offline_access in the scope although nobody asked for prompt=consent', async (t) => {
    const { signIn, refresh } = await startProvider(t)
    const { refresh_token } = await signIn()
    assert.equal((await refresh(refresh_token, A, { scope: 'a.read offline_access' })).status, 200)
  })

  describe('with a second factor', () => {
    const MFA = { acr_values: 'mfa' }

    it('asks for it when the client does, and says so in the ID token', async (t) => {
      const { signIn, browser, authorizationUrl } = await startProvider(t, { secondFactorAcr: 'mfa' })
      assert.equal(claims((await signIn()).id_token).acr, undefined)
      const question = await browser.visit(authorizationUrl(MFA))
      assert.match(question.body, /Is it you, Ada Lovelace\?/)
      const approval = { person: 'ada', approved: 'yes' }
      assert.equal(claims((await signIn(approval, authorizationUrl(MFA))).id_token).acr, 'mfa')
      // The session remembers it.
      assert.equal(claims((await signIn(undefined, authorizationUrl(MFA))).id_token).acr, 'mfa')
    })

    it('asks who it is first where it knows nobody', async (t) => {
      const { browser, authorizationUrl } = await startProvider(t, { secondFactorAcr: 'mfa' })
      const page = await browser.visit(authorizationUrl(MFA))
      const question = await browser.visit(page.url, { name: 'Eve <b>' })
      assert.match(question.body, /Is it you, Eve &#60;b&#62;\?/)
      const { url } = await browser.visit(question.url, { person: 'eve.b', cancel: 'yes' })
      assert.equal(new URL(url).searchParams.get('error'), 'access_denied')
    })

    it('is not asked for where there is none', async (t) => {
      const { signIn, authorizationUrl } = await startProvider(t)
      assert.equal(claims((await signIn({ person: 'ada' }, authorizationUrl(MFA))).id_token).acr, undefined)
    })
  })

  it('gives no refresh token to a login without offline_access', async (t) => {
    const { signIn, authorizationUrl } = await startProvider(t)
    const tokens = await signIn({ person: 'ada' }, authorizationUrl({ scope: 'openid a.read' }))
    assert.equal(tokens.refresh_token, undefined)
  })

  it('revokes the grant when a refresh token is used twice', async (t) => {
    const { signIn, refresh } = await startProvider(t)
    const first = await signIn()
    const { body: second } = await refresh(first.refresh_token, B)
    assert.equal((await refresh(first.refresh_token, B)).body.error, 'invalid_grant')
    assert.equal((await refresh(second.refresh_token, B)).body.error, 'invalid_grant')
  })

  it('keeps the refresh token when rotation is off', async (t) => {
    const { signIn, refresh } = await startProvider(t, { rotateRefreshToken: false })
    const first = await signIn()
    const answers = [await refresh(first.refresh_token, B), await refresh(first.refresh_token, A)]
    assert.deepEqual(
      answers.map(({ body }) => body.refresh_token),
      [first.refresh_token, first.refresh_token],
    )
  })

  it('gives every login a grant of its own, so that revoking one leaves the other', async (t) => {
    const { signIn, refresh, issuer } = await startProvider(t)
    const [first, second] = [await signIn(), await signIn()]
    const form = { client_id: 'app', client_secret: 'secret', token: first.refresh_token ?? '' }
    await fetch(`${issuer}/token/revocation`, { method: 'POST', body: new URLSearchParams(form) })
    assert.equal((await refresh(first.refresh_token, A)).status, 400)
    assert.equal((await refresh(second.refresh_token, A)).status, 200)
  })

  it('signs in without a question while its own session lasts, and asks again for prompt=login', async (t) => {
    const { signIn, browser, authorizationUrl } = await startProvider(t)
    await signIn()
    assert.match((await browser.visit(authorizationUrl())).url, /^http:\/\/localhost:1\/bff\/callback\?code=/)
    assert.match((await browser.visit(authorizationUrl({ prompt: 'login' }))).body, /<h1>Sign in<\/h1>/)
    assert.match(
      (await browser.visit(authorizationUrl({ prompt: 'select_account' }))).body,
      /<h1>Sign in<\/h1>/,
    )
    assert.match((await browser.visit(authorizationUrl({ prompt: 'consent' }))).url, /callback\?code=/)
  })

  it('signs in anybody by name', async (t) => {
    const { signIn } = await startProvider(t)
    const { sub, name } = claims((await signIn({ name: ' Katherine Johnson ' })).id_token)
    assert.deepEqual({ sub, name }, { sub: 'katherine.johnson', name: 'Katherine Johnson' })
  })

  it('shows a page of its own that escapes what others wrote and runs no inline script', async (t) => {
    const { browser, authorizationUrl } = await startProvider(t)
    const page = await browser.visit(authorizationUrl({ login_hint: '"><script>alert(1)</script>' }))
    assert.match(page.body, /Test &#60;App&#62;/)
    assert.doesNotMatch(page.body, /<script/)
    assert.match(
      page.headers.get('content-security-policy') ?? '',
      /form-action 'self' http:\/\/localhost:1;/,
    )
  })

  it('tells the application when the person cancels', async (t) => {
    const { browser, authorizationUrl } = await startProvider(t)
    const page = await browser.visit(authorizationUrl())
    const arrived = await browser.visit(page.url, { cancel: 'yes' })
    assert.equal(new URL(arrived.url).searchParams.get('error'), 'access_denied')
  })

  it('refuses an authorization request without PKCE and a resource nobody registered', async (t) => {
    const { browser, authorizationUrl, refresh, signIn } = await startProvider(t)
    const withoutPkce = authorizationUrl().replace(/&code_challenge\w*=[^&]*/g, '')
    assert.match((await browser.visit(withoutPkce)).url, /error=invalid_request/)
    const { refresh_token } = await signIn()
    assert.equal((await refresh(refresh_token, 'https://c.example.com')).body.error, 'invalid_target')
  })

  it('keeps offline access through a pushed authorization request', async (t) => {
    const { issuer, signIn, authorizationUrl } = await startProvider(t)
    const body = new URLSearchParams(new URL(authorizationUrl()).search)
    body.set('client_secret', 'secret')
    const pushed = await fetch(`${issuer}/request`, { method: 'POST', body })
    const { request_uri } = (await pushed.json()) as Answer
    const query = new URLSearchParams({ client_id: 'app', request_uri: request_uri ?? '' })
    assert.ok((await signIn({ person: 'grace' }, `${issuer}/auth?${query}`)).refresh_token)
  })

  it('ends its session and sends the person back when the application signs out', async (t) => {
    const { signIn, browser, issuer, authorizationUrl } = await startProvider(t)
    const { id_token } = await signIn()
    const query = new URLSearchParams({
      id_token_hint: id_token ?? '',
      post_logout_redirect_uri: `${APP}/`,
      state: 'bye',
    })
    const page = await browser.visit(`${issuer}/session/end?${query}`)
    assert.match(page.body, /src="\/assets\/submit.js"/)
    const [, xsrf = ''] = /name="xsrf" value="([^"]+)"/.exec(page.body) ?? []
    const arrived = await browser.visit(`${issuer}/session/end/confirm`, { xsrf, logout: 'yes' })
    assert.equal(arrived.url, `${APP}/?state=bye`)
    assert.match((await browser.visit(authorizationUrl())).body, /<h1>Sign in<\/h1>/)
  })

  it('asks before it signs out when no application proved that it asked', async (t) => {
    const { signIn, browser, issuer } = await startProvider(t)
    await signIn()
    const page = await browser.visit(`${issuer}/session/end`)
    assert.match(page.body, /<h1>Sign out\?<\/h1>/)
    assert.doesNotMatch(page.body, /submit\.js/)
  })

  it('reports every token request with its answer', async (t) => {
    const { signIn, refresh, tokenRequests } = await startProvider(t)
    const { refresh_token } = await signIn()
    await refresh(refresh_token, B)
    await refresh('unknown', B)
    assert.deepEqual(
      tokenRequests.map(({ clientId, grantType, status, params }) => [
        clientId,
        grantType,
        status,
        params.resource,
      ]),
      [
        ['app', 'authorization_code', 200, A],
        ['app', 'refresh_token', 200, B],
        ['app', 'refresh_token', 400, B],
      ],
    )
    assert.equal(tokenRequests[2]?.answer.error, 'invalid_grant')
  })
})
