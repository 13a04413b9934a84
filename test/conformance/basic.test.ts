import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { SignJWT } from 'jose'
import { basicCredentials } from '../../src/demo/scripted/client-check.ts'
import { unsignedJwt } from '../../src/demo/scripted/signing.ts'
import {
  type Behaviour,
  type Conformance,
  type Played,
  signingKey,
  startConformance,
} from '../kit/provider/conformance-provider.ts'

/*
 * The OpenID Foundation's basic plan for Relying Parties (oidcc-client-basic-certification-test-plan), form_post's own
 * module, and those of the full plan that say more. Each test has the name of its module.
 */

let system: Conformance
const cleanUps: (() => unknown)[] = []
before(async () => {
  system = await startConformance(
    { after: (cleanUp) => void cleanUps.unshift(cleanUp) },
    {
      settings: {
        clientAuth: { method: 'client_secret_basic', secret: 'rotating-client-secret' },
        scopes: ['openid', 'profile', 'email', 'offline_access'],
        userinfo: true,
      },
    },
  )
})
after(async () => {
  for (const cleanUp of cleanUps) await cleanUp()
})

const signer = () => system.provider.signer
const ownKey = () => signer().jwks().keys[0]!

function assertSignedIn({ status, isSignedIn, asked, calls }: Played) {
  assert.deepEqual([status, isSignedIn, calls], [200, true, 1])
  assert.deepEqual(asked, ['/authorize', '/token', '/userinfo'])
}

/** No session, no call to the API, nothing asked of the provider beyond `last`, and a line that says why. */
function assertRefused({ status, isSignedIn, asked, calls, log }: Played, why: RegExp, last = '/token') {
  assert.deepEqual([status, isSignedIn, calls], [400, false, 0])
  assert.equal(asked.at(-1), last)
  assert.match(log, why)
}

describe('a sign-in begins a session', () => {
  test('oidcc-client-test: a provider without fault signs the user in', async () => {
    assertSignedIn(await system.play())
  })

  test('oidcc-client-test-idtoken-sig-rs256: an ID token that is signed with RS256 is good', async () => {
    assertSignedIn(await system.play({ sign: (claims) => signer().sign({ ...claims }) }))
  })

  test('oidcc-client-test-kid-absent-single-jwks: without a kid the only key is taken', async () => {
    assertSignedIn(
      await system.play({ sign: (claims) => signer().sign({ ...claims }, { kid: undefined as never }) }),
    )
  })

  test('oidcc-client-test-kid-absent-multiple-jwks: without a kid every key that fits is tried, and one must verify', async () => {
    const [one, two, stranger] = await Promise.all([1, 2, 3].map(() => signingKey('RS256')))
    const keys = () => ({ keys: [ownKey(), one!.jwk, two!.jwk] })
    system.later(3_700_000)
    assertSignedIn(await system.play({ keys, sign: (claims) => two!.sign(claims) }))
    assertRefused(
      await system.play({ keys, sign: (claims) => stranger!.sign(claims) }),
      /no key of the provider/,
    )
    system.later(3_700_000)
  })

  test('oidcc-client-test-scope-userinfo-claims: the claims of the scopes come from the UserInfo endpoint', async () => {
    const played = await system.play()
    assertSignedIn(played)
    assert.deepEqual([played.user.name, played.user.email], ['Ada', 'ada@example.com'])
    const [asked] = system.provider.requests.filter(({ path }) => path === '/authorize').slice(-1)
    const scopes = asked?.query.find(([name]) => name === 'scope')?.[1].split(' ')
    assert.ok(['profile', 'email'].every((scope) => scopes?.includes(scope)))
    const bearer = system.provider.requests.findLast(({ path }) => path === '/userinfo')
    assert.match(bearer?.headers.authorization ?? '', /^Bearer ey/)
    assert.deepEqual([bearer?.query, bearer?.body], [[], ''])
  })

  test('oidcc-client-test-client-secret-basic: the client authenticates by Basic, and by nothing else', async () => {
    assertSignedIn(await system.play())
    const request = system.provider.tokenRequests().at(-1)!
    assert.deepEqual(basicCredentials(request), {
      id: system.provider.clientId,
      secret: system.provider.clientSecret,
    })
    assert.ok(!request.form.some(([name]) => /client_secret|client_assertion/.test(name)))
  })

  test('oidcc-client-test-userinfo-signed: a signed answer of the UserInfo endpoint is verified, and a forged one refused', async () => {
    const { issuer: iss, clientId: aud } = system.provider
    assertSignedIn(await system.play({ userInfo: (claims) => signer().sign({ ...claims, iss, aud }) }))
    const stranger = await signingKey('RS256', String(ownKey().kid))
    assertRefused(
      await system.play({ userInfo: (claims) => stranger.sign({ ...claims, iss, aud }) }),
      /no key of the provider/,
      '/userinfo',
    )
  })
})

/** The modules of which each must end without a session: what the provider does, and what the log says. */
const REFUSED: Record<string, [behaviour: Behaviour, why: RegExp, last?: string]> = {
  'oidcc-client-test-invalid-iss: an ID token of another issuer is refused': [
    { claims: (claims) => ({ ...claims, iss: `${claims.iss}/other` }) },
    /"claim":"iss"/,
  ],
  'oidcc-client-test-missing-sub: an ID token without sub is refused': [
    { claims: ({ sub: _, ...claims }) => claims },
    /"sub\\?"/,
  ],
  'oidcc-client-test-invalid-aud: an ID token for another client is refused': [
    { claims: (claims) => ({ ...claims, aud: 'another-client' }) },
    /"claim":"aud"/,
  ],
  'oidcc-client-test-missing-aud: an ID token without aud is refused': [
    { claims: ({ aud: _, ...claims }) => claims },
    /"aud\\?"/,
  ],
  'oidcc-client-test-missing-iat: an ID token without iat is refused': [
    { claims: ({ iat: _, ...claims }) => claims },
    /"iat\\?"/,
  ],
  'oidcc-client-test-nonce-invalid: an ID token with another nonce is refused': [
    { claims: (claims) => ({ ...claims, nonce: 'another' }) },
    /"claim":"nonce"/,
  ],
  'oidcc-client-test-idtoken-sig-none: an unsigned ID token is refused, also from the token endpoint': [
    { sign: unsignedJwt },
    /alg/,
  ],
  'oidcc-client-test-invalid-sig-rs256: an ID token with a broken signature is refused': [
    {
      sign: async (claims) => {
        const [header, payload, signature = ''] = (await signer().sign({ ...claims })).split('.')
        const bytes = Buffer.from(signature, 'base64url')
        bytes[9]! ^= 1
        return `${header}.${payload}.${bytes.toString('base64url')}`
      },
    },
    /no key of the provider/,
  ],
  'oidcc-client-test-invalid-sig-hs256: an ID token that is signed with a secret is refused': [
    {
      sign: (claims) =>
        new SignJWT({ ...claims })
          .setProtectedHeader({ alg: 'HS256' })
          .sign(Buffer.from('rotating-client-secret'.padEnd(32, '0'))),
    },
    /alg/,
  ],
  'oidcc-client-test-invalid-sig-es256: an ID token by an ES256 key that the provider does not have is refused':
    [{ sign: async (claims) => (await signingKey('ES256', 'another')).sign(claims) }, /alg/],
  'oidcc-client-test-invalid-athash: an ID token whose at_hash is that of another access token is refused': [
    { claims: (claims) => ({ ...claims, at_hash: 'AAAAAAAAAAAAAAAAAAAAAA' }) },
    /at_hash/,
  ],
  'oidcc-client-test-userinfo-invalid-sub: UserInfo of another user is refused': [
    { userInfo: (claims) => ({ ...claims, sub: 'mallory' }) },
    /userinfo/,
    '/userinfo',
  ],
}

describe('no session begins, nothing more is asked, and the log says why', () => {
  for (const [title, [behaviour, why, last]] of Object.entries(REFUSED))
    test(title, async () => assertRefused(await system.play(behaviour), why, last))

  test('oidcc-client-test-form-post-error: an error that is posted begins no session, and is shown', async () => {
    const posted = await system.start({ responseMode: 'form_post' })
    const fine = await system.play({}, posted)
    assertSignedIn(fine)
    const { status, isSignedIn, asked, log } = await system.play(
      { response: ({ state = '', iss = '' }) => ({ state, iss, error: 'access_denied' }) },
      posted,
    )
    assert.deepEqual([status, isSignedIn, asked], [403, false, ['/authorize']])
    assert.match(log, /access_denied/)
  })
})

test('oidcc-client-test-3rd-party-init-login: a link of the provider begins a sign-in here, and leads nowhere else', async () => {
  system.behave({})
  const { provider, cloakroom } = system
  const params = { iss: provider.issuer, login_hint: 'ada', target_link_uri: 'https://evil.example/' }
  const browser = cloakroom.browser()
  const landing = await browser.navigate(`${cloakroom.publicUrl}/bff/login?${new URLSearchParams(params)}`, {
    from: provider.origin,
  })
  assert.equal(landing.url.href, `${cloakroom.publicUrl}/`)
  assert.equal((await browser.fetch('/bff/user')).status, 200)
  const asked = provider.requests.findLast(({ path }) => path === '/authorize')
  assert.ok(asked?.query.some(([name, value]) => name === 'login_hint' && value === 'ada'))
})
