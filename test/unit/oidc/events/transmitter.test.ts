import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { createSigner } from '../../../../src/demo/scripted/signing.ts'
import { BffError } from '../../../../src/errors.ts'
import { createTransmitter, metadataUrls } from '../../../../src/oidc/events/transmitter.ts'

const ISSUER = 'https://id.example.com/realms/shop'
const INSERTED = 'https://id.example.com/.well-known/ssf-configuration/realms/shop'
const APPENDED = `${ISSUER}/.well-known/ssf-configuration`
const KEYS = `${ISSUER}/keys`
const SOUND = { issuer: ISSUER, jwks_uri: KEYS }
const signer = await createSigner()
const jws = await signer.sign({ any: 'claims' }, { typ: 'secevent+jwt' })

type Answer = () => Response

function setUp(answers: Record<string, Answer>, { insecureHosts = [] as string[], issuer = ISSUER } = {}) {
  const clock = { at: 1_000_000 }
  const asked: string[] = []
  const transmitter = createTransmitter({
    ...{ transmitter: issuer, provider: { insecureHosts, timeoutMs: 5_000 } },
    monotonicNow: () => clock.at,
    providerFetch: {
      async fetch(url) {
        asked.push(url)
        const answer = answers[url]
        if (!answer) return new Response('', { status: 404 })
        return answer()
      },
    },
  })
  /** `verified`, `forged`, or the reason why it could not be told. */
  const verdict = (token = jws) =>
    transmitter.requireSigned(token).then(
      () => 'verified',
      (error) => {
        if (!(error instanceof BffError)) return 'forged'
        assert.deepEqual([error.code, error.retryAfterSeconds], ['provider_unavailable', 2])
        return String((error.cause as Error).message)
      },
    )
  return { verdict, clock, asked, answers }
}

const json = (body: unknown) => () => Response.json(body)
const keys = json(signer.jwks())

suite('the metadata of a transmitter', () => {
  test('stand where SSF 1.0 §7.2 inserts them, or where others append them', async () => {
    assert.deepEqual(metadataUrls(ISSUER), [INSERTED, APPENDED])
    assert.deepEqual(metadataUrls('https://id.example.com/'), [
      'https://id.example.com/.well-known/ssf-configuration',
    ])
    const { verdict, asked } = setUp({ [INSERTED]: json(SOUND), [KEYS]: keys })
    assert.equal(await verdict(), 'verified')
    assert.equal(await verdict(), 'verified')
    assert.deepEqual(asked, [INSERTED, KEYS], 'once for many events')
    assert.equal(await setUp({ [APPENDED]: json(SOUND), [KEYS]: keys }).verdict(), 'verified')
    const page = () => new Response('<html>', { headers: { 'content-type': 'text/html' } })
    assert.equal(
      await setUp({ [INSERTED]: page, [APPENDED]: json(SOUND), [KEYS]: keys }).verdict(),
      'verified',
    )
  })

  test('must be its own, name usable keys and be there; until then the event is to be sent again', async () => {
    const plain = { issuer: ISSUER, jwks_uri: 'http://keys.example.com/keys' }
    const cases: [RegExp, Record<string, Answer>][] = [
      [/status 404/, {}],
      [/status 503/, { [INSERTED]: () => new Response('', { status: 503 }), [APPENDED]: json(SOUND) }],
      [
        /another issuer/,
        { [INSERTED]: json({ ...SOUND, issuer: `${ISSUER}/` }), [KEYS]: keys, [APPENDED]: json({}) },
      ],
      [/no jwks_uri/, { [INSERTED]: json({ issuer: ISSUER }) }],
      [/no jwks_uri/, { [INSERTED]: json({ issuer: ISSUER, jwks_uri: ['x'] }) }],
      [/not https: correct it there, or allow the host/, { [INSERTED]: json(plain) }],
      [/not https/, { [INSERTED]: json({ issuer: ISSUER, jwks_uri: 'ftp://keys.example.com/' }) }],
      [/fetch failed/, { [INSERTED]: () => assert.fail(new TypeError('fetch failed')) }],
      [/status 500/, { [INSERTED]: json(SOUND), [KEYS]: () => new Response('', { status: 500 }) }],
      [/status 404/, { [INSERTED]: json(SOUND) }],
    ]
    for (const [reason, answers] of cases) assert.match(await setUp(answers).verdict(), reason)
    const allowed = { [INSERTED]: json(plain), [plain.jwks_uri]: keys }
    assert.equal(await setUp(allowed, { insecureHosts: ['keys.example.com'] }).verdict(), 'verified')
  })

  test('are asked for again after a failure, and not for each event meanwhile', async () => {
    const { verdict, clock, asked, answers } = setUp({})
    await verdict()
    const first = asked.length
    await verdict()
    assert.equal(asked.length, first)
    Object.assign(answers, { [INSERTED]: json(SOUND), [KEYS]: keys })
    clock.at += 500
    assert.equal(await verdict(), 'verified')
  })
})

suite('a signature that no known key verifies', () => {
  test('is forged once the keys were read for it; a key that may be new is asked about later', async () => {
    const [forger, successor] = [await createSigner({ ownKey: true }), await createSigner({ ownKey: true })]
    const published = { keys: [...signer.jwks().keys] }
    const { verdict, clock, asked } = setUp({
      [INSERTED]: json(SOUND),
      [KEYS]: () => Response.json(published),
    })
    const forged = await forger.sign({}, { typ: 'secevent+jwt' })
    const sameName = await forger.sign({}, { typ: 'secevent+jwt', kid: String(signer.jwks().keys[0]!.kid) })
    assert.equal(await verdict(forged), 'forged')
    assert.equal(await verdict(forged), 'forged', 'is known to be none')
    assert.equal(await verdict(sameName), 'forged')
    const reads = asked.length
    published.keys.push(...successor.jwks().keys)
    const rotated = await successor.sign({}, { typ: 'secevent+jwt' })
    assert.match(await verdict(rotated), /no key of the provider verifies/, 'is to be sent again')
    assert.equal(asked.length, reads, 'forged events bring about no more reads')
    clock.at += 60_000
    assert.equal(await verdict(rotated), 'verified')
    assert.equal(await verdict(), 'verified')
  })
})
