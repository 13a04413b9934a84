import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import {
  type Behaviour,
  type Conformance,
  type Played,
  signingKey,
  startConformance,
} from '../kit/provider/conformance-provider.ts'

/*
 * The OpenID Foundation's plans for Relying Parties oidcc-client-config-certification-test-plan, whose module
 * idtoken-sig-none is in the basic plan too, and oidcc-client-refreshtoken-test-plan.
 */

let system: Conformance
const cleanUps: (() => unknown)[] = []
before(async () => {
  system = await startConformance(
    { after: (cleanUp) => void cleanUps.unshift(cleanUp) },
    { provider: { control: { idTokenOnRefresh: true, accessTokenSeconds: 60 } } },
  )
})
after(async () => {
  for (const cleanUp of cleanUps) await cleanUp()
})

function assertSignedIn({ status, isSignedIn, asked, calls }: Played) {
  assert.deepEqual([status, isSignedIn, calls], [200, true, 1])
  assert.deepEqual(asked, ['/authorize', '/token'])
}

/** How often the provider was asked for this path. */
const times = (path: string) => system.provider.requests.filter((request) => request.path === path).length

describe('what is read of the provider', () => {
  test('oidcc-client-test-discovery-openid-config: the endpoints are those of the discovery document', async () => {
    assertSignedIn(await system.play())
    const [first] = system.provider.requests
    assert.deepEqual([first?.method, first?.path], ['GET', '/.well-known/openid-configuration'])
  })

  test('oidcc-client-test-discovery-jwks-uri-keys: the keys are read from jwks_uri, and verify', async () => {
    system.later(3_700_000)
    const before = times('/jwks')
    assertSignedIn(await system.play())
    assert.equal(times('/jwks'), before + 1)
  })

  test('oidcc-client-test-discovery-issuer-mismatch: a document of another issuer is not used, and no sign-in begins', async () => {
    const { control, issuer } = system.provider
    const sound = control.metadata
    control.metadata = { ...sound, issuer: `${issuer}/other` }
    const cloakroom = await system.start()
    const from = system.provider.requests.length
    const answer = await cloakroom.browser().open('/bff/login')
    control.metadata = sound
    assert.deepEqual([answer.status, answer.json().code], [502, 'provider_rejected'])
    assert.ok(system.provider.requests.slice(from).every(({ path }) => path.startsWith('/.well-known/')))
    assert.match(cloakroom.logs.join('\n'), /issuer/)
  })

  test('oidcc-client-test-signing-key-rotation: after a change of keys a user signs in as before', async () => {
    assertSignedIn(await system.play())
    await system.provider.signer.rotateKey()
    assertSignedIn(await system.play())
  })

  test('oidcc-client-test-signing-key-rotation-just-before-signing: a key that is new since the sign-in began is found', async () => {
    assertSignedIn(await system.play())
    const { signer } = system.provider
    assertSignedIn(
      await system.play({
        async sign(claims) {
          await signer.rotateKey()
          return signer.sign({ ...claims })
        },
      }),
    )
  })
})

describe('a refresh', () => {
  /** Signs in, lets the access token expire, and calls the API while the provider behaves so. */
  async function refreshed(behaviour: Behaviour) {
    const { provider, api } = system
    const { browser, isSignedIn } = await system.play()
    assert.equal(isSignedIn, true)
    provider.control.idTokenClaims = { groups: ['admins'] }
    system.behave(behaviour)
    const before = { tokens: times('/token'), calls: api.requests.length }
    system.tick(61_000)
    const answer = await browser.fetch('/api/orders')
    const user = await browser.fetch('/bff/user')
    provider.control.idTokenClaims = {}
    return {
      ...{ status: answer.status, calls: api.requests.length - before.calls },
      tokens: times('/token') - before.tokens,
      user: user.json(),
    }
  }

  test('oidcc-client-test-refresh-token: brings an access token, and an ID token that is verified', async () => {
    const { status, tokens, calls, user } = await refreshed({})
    assert.deepEqual([status, tokens, calls, user.groups], [200, 1, 1, ['admins']])
  })

  test('oidcc-client-test-refresh-token-invalid-issuer: an ID token of another issuer ends the session', async () => {
    const claims: Behaviour['claims'] = (sound) => ({ ...sound, iss: `${sound.iss}/other` })
    const { status, calls, user } = await refreshed({ claims })
    assert.deepEqual([status, calls, user.code], [401, 0, 'session_required'])
  })

  test('oidcc-client-test-refresh-token-invalid-sub: an ID token of another user ends the session', async () => {
    const claims: Behaviour['claims'] = (sound) => ({ ...sound, sub: 'mallory' })
    const { status, calls, user } = await refreshed({ claims })
    assert.deepEqual([status, calls, user.code], [401, 0, 'session_required'])
  })

  test('an ID token under a key that nobody knows is not used either', async () => {
    const stranger = await signingKey('RS256', 'stranger')
    const { status, user } = await refreshed({ sign: (claims) => stranger.sign(claims) })
    assert.deepEqual([status, user.groups], [200, undefined])
  })
})
