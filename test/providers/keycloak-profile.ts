import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { keycloak } from '../../src/demo/profiles/keycloak.ts'
import { startScriptedProvider } from '../../src/demo/profiles/scripted-provider.ts'
import { jwtClaims } from '../../src/demo/scripted/signing.ts'
import { APP, CLIENT_ID, PERSON, type Scene } from './provider.ts'

const REDIRECT_URI = `${APP}/bff/callback`

/** An authorization server as a client meets it. */
type Subject = {
  readonly issuer: string
  readonly secret: string
  /** Signs in at this authorization request; resolves with the parameters of the authorization response. */
  signIn(url: URL): Promise<URLSearchParams>
}

/**
 * Holds the profile that `cloakroom dev --as keycloak` has against Keycloak itself: the same questions to both, and the
 * answers without what differs from one sign-in to the next.
 */
export async function compareKeycloakProfile(scene: Scene): Promise<void> {
  const { provider } = scene
  const real: Subject = {
    ...{ issuer: provider.issuer, secret: provider.clientSecret },
    async signIn(url) {
      const browser = scene.browser()
      const page = await browser.navigate(url.href, { from: APP })
      const landing = page.url.origin === APP ? page : await provider.passSignIn(browser, page)
      const back = [landing, ...page.exchanges, ...landing.exchanges].find(({ url: at }) =>
        at.href.startsWith(REDIRECT_URI),
      )
      return (
        back?.url.searchParams ??
        new URLSearchParams({ error: `page at ${page.url.pathname}: ${page.status}` })
      )
    },
  }
  const clientSecret = 'scripted-client-secret-0123456789'
  const scripted = await startScriptedProvider({
    ...{ profile: keycloak, client: { clientId: CLIENT_ID, clientSecret }, clientName: 'the comparison' },
    ...{ redirectUri: REDIRECT_URI, postLogoutRedirectUri: `${APP}/bff/logged-out`, accessTokenSeconds: 60 },
    persons: [{ sub: PERSON.user, name: 'Ada Lovelace', email: 'ada@example.com' }],
    apis: ['orders', 'billing'].map((name) => ({ name, audience: `${name}-api`, scopes: [name] })),
  })
  try {
    const double: Subject = {
      ...{ issuer: scripted.issuer, secret: clientSecret },
      async signIn(url) {
        const asked = new URL(url)
        const ticket = scripted.ticketFor({ user: PERSON.user, withSecondFactor: false })
        asked.searchParams.append('login_hint', ticket)
        const answer = await fetch(asked, { redirect: 'manual' })
        const location = answer.headers.get('location')
        return location === null
          ? new URLSearchParams({ error: `page: ${answer.status}` })
          : new URL(location).searchParams
      },
    }
    assert.deepEqual(await behaviourOf(double), await behaviourOf(real))
  } finally {
    await scripted.close()
  }
}

type Answer = { readonly status: number; readonly json: Record<string, unknown> }

async function behaviourOf({ issuer, secret, signIn }: Subject) {
  const post = async (endpoint: string, form: [string, string][], key = secret): Promise<Answer> => {
    const answer = await fetch(`${issuer}/protocol/openid-connect/${endpoint}`, {
      method: 'POST',
      headers: { authorization: `Basic ${Buffer.from(`${CLIENT_ID}:${key}`).toString('base64')}` },
      body: new URLSearchParams(form),
    })
    const text = await answer.text()
    return { status: answer.status, json: text === '' ? {} : JSON.parse(text) }
  }
  const authorize = async (scope: string) => {
    const verifier = randomBytes(32).toString('base64url')
    const url = new URL(`${issuer}/protocol/openid-connect/auth`)
    url.search = new URLSearchParams({
      ...{
        client_id: CLIENT_ID,
        response_type: 'code',
        redirect_uri: REDIRECT_URI,
        scope,
        state: 's',
        nonce: 'n',
      },
      ...{
        code_challenge: createHash('sha256').update(verifier).digest('base64url'),
        code_challenge_method: 'S256',
      },
    }).toString()
    return { verifier, answer: await signIn(url) }
  }
  const codeForm = async (scope: string): Promise<[string, string][]> => {
    const { verifier, answer } = await authorize(scope)
    const code = answer.get('code') ?? ''
    return Object.entries({
      grant_type: 'authorization_code',
      code,
      redirect_uri: REDIRECT_URI,
      code_verifier: verifier,
    })
  }
  const refresh = (token: unknown, more: [string, string][] = []) =>
    post('token', [['grant_type', 'refresh_token'], ['refresh_token', String(token)], ...more])
  const tokens = async (scope: string) => (await post('token', await codeForm(scope))).json
  const both = 'openid profile email orders billing'
  const form = await codeForm(both)
  const code = await post('token', form)
  const narrowed = await refresh(code.json.refresh_token, [['scope', 'orders openid']])
  const whole = await refresh(narrowed.json.refresh_token)
  const reused = await refresh(narrowed.json.refresh_token, [['scope', 'billing openid']])
  const afterReuse = await refresh(whole.json.refresh_token)
  const ofOrders = await tokens('openid orders')
  const other = await tokens('openid orders')
  const revoked = await tokens('openid orders')
  return {
    unknownScope: (await authorize('openid nothing-of-this-name')).answer.get('error'),
    wrongSecret: refusalOf(await post('token', await codeForm(both), 'wrong')),
    code: tokenOf(code),
    codeAgain: refusalOf(await post('token', form)),
    narrowed: tokenOf(narrowed),
    whole: tokenOf(whole),
    reused: refusalOf(reused),
    afterReuse: afterReuse.status === 200 ? tokenOf(afterReuse) : refusalOf(afterReuse),
    widened: tokenOrRefusal(await refresh(ofOrders.refresh_token, [['scope', 'billing openid']])),
    repeated: refusalOf(
      await refresh(other.refresh_token, [
        ['scope', 'openid'],
        ['scope', 'orders'],
      ]),
    ),
    madeUp: refusalOf(await refresh('made-up')),
    revocation: (await post('revoke', [['token', String(revoked.refresh_token)]])).status,
    revoked: refusalOf(await refresh(revoked.refresh_token)),
  }
}

const tokenOrRefusal = (answer: Answer) => (answer.status === 200 ? tokenOf(answer) : refusalOf(answer))

function refusalOf({ status, json }: Answer) {
  return { status, error: json.error }
}

/** What a client can go by: whom the token is for, its scopes, and what came with it. */
function tokenOf({ status, json }: Answer) {
  const token = String(json.access_token)
  const header = JSON.parse(Buffer.from(token.split('.')[0] ?? '', 'base64url').toString())
  const { aud, typ, azp, sid } = jwtClaims(token) ?? {}
  return {
    ...{ status, typ, headerType: header.typ, azp, hasSid: typeof sid === 'string' },
    audiences: [aud]
      .flat()
      .filter((one) => one !== undefined)
      .sort(),
    scopes: String(json.scope).split(' ').sort(),
    ...{ hasRefreshToken: json.refresh_token !== undefined, hasIdToken: json.id_token !== undefined },
    tokenType: json.token_type,
    tellsRefreshEnd: typeof json.refresh_expires_in,
    sessionState: typeof json.session_state,
  }
}
