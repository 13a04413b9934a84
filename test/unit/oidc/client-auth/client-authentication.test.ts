import assert from 'node:assert/strict'
import { createHash, createPublicKey, X509Certificate } from 'node:crypto'
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { jwtVerify, SignJWT } from 'jose'
import { BffError } from '../../../../src/errors.ts'
import { changed, ENV, load } from '../../../kit/config/base-config.ts'
import { ISSUER, type ScriptedRequest, scriptedProvider } from '../../../kit/provider/scripted-provider.ts'
import { rsaKey, type SelfSigned, selfSigned } from '../../../kit/self-signed.ts'

const TOKEN_ENDPOINT = `${ISSUER}/token`
const SECRET = 'a client secret of more than 32 bytes'
const ASSERTION_TYPE = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'

/** A Relying Party whose config file has this `clientAuth`, with the files that it names; they may change. */
function scene(clientAuth: object, { files = {}, more = '', metadata = {}, env = {} }: SceneOptions = {}) {
  const before = 'clientAuth:\n    method: client_secret_post\n    secret: { env: CLIENT_SECRET }'
  const text = changed(before, `clientAuth: ${JSON.stringify(clientAuth)}${more}`)
  const { config, warnings } = load(text, { env: { ...ENV, ...env }, files })
  const scripted = scriptedProvider({
    provider: config.provider,
    metadata: { pushed_authorization_request_endpoint: `${ISSUER}/par`, ...metadata },
  })
  scripted.scripts.set('/token', () => Response.json(TOKENS))
  scripted.scripts.set('/par', () => Response.json({ request_uri: 'urn:x', expires_in: 60 }, { status: 201 }))
  scripted.scripts.set('/revoke', () => new Response(null, { status: 200 }))
  const refresh = () =>
    scripted.relyingParty.refreshGrant('rt', [], { keep: async () => undefined, ignoredIdToken() {} })
  const requests = (path: string) => scripted.requests.filter((request) => request.path === path)
  const last = (path = '/token') => requests(path).at(-1)!
  return { ...scripted, warnings, refresh, last, sent: requests }
}
type SceneOptions = {
  files?: Record<string, string>
  more?: string
  metadata?: object
  env?: Record<string, string>
}

const TOKENS = { access_token: 'at', token_type: 'Bearer', expires_in: 300 }
const CHECKS = { state: 's', nonce: 'n', codeVerifier: 'v'.repeat(43) }
const refused = () => Response.json({ error: 'invalid_client' }, { status: 401 })

function assertionOf({ form }: ScriptedRequest): string {
  assert.equal(form.get('client_assertion_type'), ASSERTION_TYPE)
  assert.equal(form.get('client_id'), 'spa')
  assert.equal(form.has('client_secret'), false)
  return form.get('client_assertion')!
}

/** What a server checks (RFC 7523 §3), and that nothing is left to chance. */
async function verified(
  request: ScriptedRequest,
  key: Parameters<typeof jwtVerify>[1],
  { audience = ISSUER, alg }: { audience?: string; alg: string },
) {
  const { payload, protectedHeader } = await jwtVerify(assertionOf(request), key as Uint8Array, {
    ...{ issuer: 'spa', subject: 'spa', audience, algorithms: [alg] },
    requiredClaims: ['jti', 'iat', 'nbf', 'exp'],
  })
  assert.equal(typeof payload.aud, 'string')
  assert.ok(payload.exp! - payload.iat! <= 600)
  const header: Record<string, unknown> = { ...protectedHeader, jti: payload.jti }
  return header
}

/** Every endpoint that authenticates the client is called once. */
async function callAll({ relyingParty, refresh, last }: ReturnType<typeof scene>) {
  assert.ok('accessToken' in (await refresh()))
  await relyingParty.authorizationUrl(CHECKS, [])
  assert.equal(await relyingParty.revoke('rt'), true)
  return ['/token', '/par', '/revoke'].map(last)
}

test('client_secret_jwt: each request has an assertion of its own, signed with the secret by HS256', async () => {
  const metadata = { revocation_endpoint_auth_methods_supported: ['client_secret_jwt'] }
  const requests = await callAll(scene({ method: 'client_secret_jwt', secret: SECRET }, { metadata }))
  const key = Buffer.from(SECRET)
  const seen = await Promise.all(requests.map((request) => verified(request, key, { alg: 'HS256' })))
  assert.equal(new Set(seen.map(({ jti }) => jti)).size, 3)
})

test('client_secret_jwt: the secret itself is never sent, whatever the revocation endpoint says of the assertion', async () => {
  for (const methods of [undefined, ['client_secret_basic', 'client_secret_post']]) {
    const metadata = methods ? { revocation_endpoint_auth_methods_supported: methods } : {}
    const shop = scene({ method: 'client_secret_jwt', secret: SECRET }, { metadata })
    shop.scripts.set('/revoke', refused)
    await assert.rejects(shop.relyingParty.revoke('rt'))
    const [{ headers, form } = assert.fail(), ...more] = shop.sent('/revoke')
    assert.deepEqual([more, headers.get('authorization'), form.has('client_secret')], [[], null, false])
  }
})

test('private_key_jwt: the assertion names key and algorithm as they are configured, and the issuer or the token endpoint', async () => {
  const key = rsaKey()
  for (const [audience, expected] of [
    ['auto', ISSUER],
    ['token_endpoint', TOKEN_ENDPOINT],
  ] as const) {
    const auth = { method: 'private_key_jwt', key, keyId: 'key-2', algorithm: 'PS384', audience }
    for (const request of await callAll(scene(auth))) {
      const header = await verified(request, createPublicKey(key), { alg: 'PS384', audience: expected })
      assert.deepEqual([header.alg, header.kid], ['PS384', 'key-2'])
    }
  }
})

describe('certificate', () => {
  const key = rsaKey()
  const FILES = { key: { file: '/run/tls.key' }, certificate: { file: '/run/tls.crt' } }
  const auth = { method: 'certificate', ...FILES }
  const issued = (options: { key?: string; days?: number } = {}) =>
    selfSigned(['app.example.com'], { key, days: 365, ...options })
  const filesOf = ({ cert, key: pem }: SelfSigned) => ({ '/run/tls.key': pem, '/run/tls.crt': cert })
  const hash = (cert: string, algorithm: string) =>
    createHash(algorithm).update(new X509Certificate(cert).raw).digest('base64url')
  const thumbprintIn = async (request: ScriptedRequest, pem: string) =>
    (await verified(request, createPublicKey(pem), { alg: 'PS256', audience: TOKEN_ENDPOINT }))['x5t#S256']

  test('every request names it by its SHA-256 thumbprint, signs with PS256, and is for the token endpoint', async () => {
    const pair = issued()
    for (const request of await callAll(scene(auth, { files: filesOf(pair) }))) {
      const header = await verified(request, createPublicKey(key), { alg: 'PS256', audience: TOKEN_ENDPOINT })
      const { jti: _, ...rest } = header
      assert.deepEqual(rest, { alg: 'PS256', typ: 'JWT', 'x5t#S256': hash(pair.cert, 'sha256') })
    }
  })

  test('RS256 sends the SHA-1 thumbprint too, for servers that know no other', async () => {
    const pair = issued()
    const { refresh, last } = scene({ ...auth, algorithm: 'RS256' }, { files: filesOf(pair) })
    await refresh()
    const audience = TOKEN_ENDPOINT
    const header = await verified(last(), createPublicKey(key), { alg: 'RS256', audience })
    assert.deepEqual([header.x5t, header['x5t#S256']], [hash(pair.cert, 'sha1'), hash(pair.cert, 'sha256')])
  })

  test('an EC key signs with its own algorithm, and the certificate is found wherever in the chain it stands', async () => {
    const own = selfSigned(['app.example.com'], { days: 365 })
    const files = { '/run/tls.key': own.key, '/run/tls.crt': issued().cert + own.cert }
    const { refresh, last } = scene(auth, { files })
    await refresh()
    const options = { alg: 'ES256', audience: TOKEN_ENDPOINT }
    const header = await verified(last(), createPublicKey(own.key), options)
    assert.equal(header['x5t#S256'], hash(own.cert, 'sha256'))
  })

  test('new files are taken up at the next request; half of a pair is not, and the log warns once', async () => {
    const [old, next] = [issued(), issued({ key: rsaKey() })]
    const files = filesOf(old)
    const { refresh, last, logs } = scene(auth, { files })
    files['/run/tls.key'] = next.key
    for (let times = 0; times < 2; times += 1) {
      assert.ok('accessToken' in (await refresh()))
      assert.equal(await thumbprintIn(last(), old.key), hash(old.cert, 'sha256'))
    }
    assert.equal(logs.filter((line) => line.includes('do not belong together')).length, 1)
    files['/run/tls.crt'] = next.cert
    assert.ok('accessToken' in (await refresh()))
    assert.equal(await thumbprintIn(last(), next.key), hash(next.cert, 'sha256'))
    const [line = ''] = logs.filter((one) => one.includes(hash(next.cert, 'sha256')))
    assert.equal(JSON.parse(line).notAfter, new X509Certificate(next.cert).validToDate.toISOString())
  })

  test('one that the provider does not know yet: the one before is used on at once, and the new one tried again after a minute', async () => {
    const [old, next] = [issued(), issued({ key: rsaKey() })]
    const files = filesOf(old)
    const { refresh, last, sent, scripts, clock, logs } = scene(auth, { files })
    await refresh()
    Object.assign(files, filesOf(next))
    let known = old
    scripts.set('/token', async (request) => {
      const [header = ''] = assertionOf(request).split('.')
      const thumbprint = JSON.parse(Buffer.from(header, 'base64url').toString())['x5t#S256']
      return thumbprint === hash(known.cert, 'sha256') ? Response.json(TOKENS) : refused()
    })
    assert.ok('accessToken' in (await refresh()))
    assert.equal(sent('/token').length, 3)
    assert.ok('accessToken' in (await refresh()))
    assert.equal(sent('/token').length, 4, 'the new one is not tried again at once')
    const warnings = logs.filter((line) => line.includes('does not accept the new client certificate'))
    assert.deepEqual(
      warnings.map((line) => JSON.parse(line).keyId),
      [hash(next.cert, 'sha256')],
    )
    known = next
    clock.at += 60_000
    assert.ok('accessToken' in (await refresh()))
    assert.equal(await thumbprintIn(last(), next.key), hash(next.cert, 'sha256'))
  })

  test('one that the provider does not know yet keeps no user from signing in: a pushed request goes back too', async () => {
    const [old, next] = [issued(), issued({ key: rsaKey() })]
    const files = filesOf(old)
    const { relyingParty, last, sent, scripts, clock } = scene(auth, { files })
    await relyingParty.authorizationUrl(CHECKS, [])
    Object.assign(files, filesOf(next))
    scripts.set('/par', async (request) => {
      const [header = ''] = assertionOf(request).split('.')
      const thumbprint = JSON.parse(Buffer.from(header, 'base64url').toString())['x5t#S256']
      return thumbprint === hash(old.cert, 'sha256')
        ? Response.json({ request_uri: 'urn:x', expires_in: 60 }, { status: 201 })
        : refused()
    })
    for (const requests of [3, 4, 6]) {
      await relyingParty.authorizationUrl(CHECKS, [])
      assert.equal(sent('/par').length, requests)
      assert.equal(await thumbprintIn(last('/par'), old.key), hash(old.cert, 'sha256'))
      if (requests === 4) clock.at += 60_000
    }
  })

  test('one that expired is not gone back to', async () => {
    const [old, next] = [issued({ days: 1 }), issued({ key: rsaKey() })]
    const files = filesOf(old)
    const { refresh, sent, scripts, clock } = scene(auth, { files })
    await refresh()
    Object.assign(files, filesOf(next))
    clock.at += 2 * 24 * 3_600_000
    scripts.set('/token', refused)
    assert.ok('error' in (await refresh()))
    assert.equal(sent('/token').length, 2)
  })

  test('check says when it has expired, expires soon, or is not for its key', () => {
    const warned = (pair: SelfSigned) => scene(auth, { files: filesOf(pair) }).warnings
    assert.deepEqual(warned(issued()), [])
    const [expired] = warned(issued({ days: -2 }))
    assert.match(`${expired?.path} ${expired?.message}`, /^provider\.clientAuth\.certificate expired on 20/)
    assert.match(warned(issued({ days: 20 }))[0]!.message, /^expires soon, on 20/)
    const files = { ...filesOf(issued()), '/run/tls.key': rsaKey() }
    assert.throws(() => scene(auth, { files }), /provider\.clientAuth\.certificate: is not for the key/)
  })
})

describe('workload_identity', () => {
  const assertion = (seconds: number) =>
    new SignJWT({ iss: 'https://cluster.test', sub: 'system:serviceaccount:shop:cloakroom' })
      .setProtectedHeader({ alg: 'HS256' })
      .setExpirationTime(Math.floor(Date.now() / 1000) + seconds)
      .sign(Buffer.from(SECRET))

  /** A projected volume: the file is a link into a folder that is a link, which is what changes. */
  async function volume(t: TestContext) {
    const root = mkdtempSync(join(tmpdir(), 'cloakroom-token-'))
    t.after(() => rmSync(root, { recursive: true, force: true }))
    const file = join(root, 'token')
    let version = 0
    const write = (content: string) => {
      version += 1
      const folder = join(root, `..v${version}`)
      mkdirSync(folder)
      writeFileSync(join(folder, 'token'), content)
      symlinkSync(folder, join(root, '..next'))
      renameSync(join(root, '..next'), join(root, '..data'))
    }
    const first = await assertion(3600)
    write(`${first}\n`)
    symlinkSync(join('..data', 'token'), file)
    return { file, write, first, remove: () => rmSync(join(root, '..data')) }
  }
  /** The kit's config reads no real files. */
  const there = (file: string) => ({ files: { [file]: 'there' } })

  test('the assertion is read at each use, through the links of a projected volume', async (t) => {
    const { file, write, first } = await volume(t)
    const shop = scene({ method: 'workload_identity', assertionFile: file }, there(file))
    for (const request of await callAll(shop)) assert.equal(assertionOf(request), first)
    const second = await assertion(7200)
    write(second)
    for (const request of await callAll(shop)) assert.equal(assertionOf(request), second)
  })

  test('a file that is absent, empty or too old fails with its name, before anything is sent', async (t) => {
    const { file, write, remove } = await volume(t)
    const { refresh, relyingParty, sent } = scene(
      { method: 'workload_identity', assertionFile: file },
      there(file),
    )
    for (const [spoil, says] of [
      [() => write('\n'), /is empty: /],
      [async () => write(await assertion(-90)), /expired \d+ s ago: /],
      [remove, /cannot be read \(ENOENT\): /],
    ] as const) {
      await spoil()
      const failed = await refresh()
      assert.ok('error' in failed)
      const { code, details, cause } = failed.error
      assert.deepEqual(
        [code, details, failed.wasSent],
        ['provider_rejected', { reason: 'invalid_client' }, false],
      )
      assert.match((cause as Error).message, says)
      assert.ok((cause as Error).message.endsWith(file))
      const isSame = (error: unknown) => error instanceof BffError && error.code === 'provider_rejected'
      await assert.rejects(relyingParty.authorizationUrl(CHECKS, []), isSame)
    }
    assert.deepEqual([sent('/token').length, sent('/par').length], [0, 0])
    write(await assertion(60))
    assert.ok('accessToken' in (await refresh()))
  })

  test('the file of the platform is used unless one is named, and check says what is wrong with either', () => {
    const platform = { AZURE_FEDERATED_TOKEN_FILE: '/var/run/token' }
    const auth = { method: 'workload_identity' }
    scene(auth, { env: platform, files: { '/var/run/token': 'there' } })
    assert.throws(() => scene(auth), /clientAuth\.assertionFile: .*AZURE_FEDERATED_TOKEN_FILE is not set/)
    assert.throws(
      () => scene(auth, { env: platform }),
      /cannot read the file \/var\/run\/token \(there is no such file\)/,
    )
  })
})

describe('tls_client_auth', () => {
  const { cert, key } = selfSigned(['app.example.com'], { days: 365 })
  const more = (pair = { cert, key }) => `\n  tls: ${JSON.stringify(pair)}`
  const auth = { method: 'tls_client_auth' }

  test('sends the client id alone, to the aliases that ask for a certificate where the metadata has them', async () => {
    const metadata = {
      mtls_endpoint_aliases: {
        token_endpoint: 'https://mtls.example.com/mtls/token',
        pushed_authorization_request_endpoint: 'https://mtls.example.com/mtls/par',
        revocation_endpoint: 'https://mtls.example.com/mtls/revoke',
      },
    }
    for (const [prefix, options] of [
      ['', {}],
      ['/mtls', { metadata }],
    ] as const) {
      const shop = scene(auth, { more: more(), ...options })
      for (const path of ['/token', '/par', '/revoke'])
        shop.scripts.set(prefix + path, shop.scripts.get(path)!)
      await shop.refresh()
      await shop.relyingParty.authorizationUrl(CHECKS, [])
      await shop.relyingParty.revoke('rt')
      for (const path of ['/token', '/par', '/revoke']) {
        const { form, headers } = shop.last(prefix + path)
        assert.equal(form.get('client_id'), 'spa')
        assert.deepEqual([form.has('client_secret'), form.has('client_assertion')], [false, false])
        assert.equal(headers.has('authorization'), false)
      }
    }
  })

  test('an alias yields to an endpoint that is configured, and must be https', async () => {
    const alias = (url: string) => ({ metadata: { mtls_endpoint_aliases: { token_endpoint: url } } })
    const endpoints = `\n  endpoints: { token: "${ISSUER}/own" }`
    const own = scene(auth, { more: more() + endpoints, ...alias('https://mtls.example.com/token') })
    own.scripts.set('/own', () => Response.json(TOKENS))
    assert.ok('accessToken' in (await own.refresh()))
    const plain = scene(auth, { more: more(), ...alias('http://mtls.example.com/token') })
    await assert.rejects(plain.relyingParty.ready(), /provider_rejected|unusable answer/)
  })

  test('check wants the certificate, in TLS, with its own key, and says when it ends', () => {
    assert.throws(() => scene(auth), /provider\.clientAuth: needs a client certificate .*tls: \{ cert/)
    const other = selfSigned(['x.test']).key
    assert.throws(() => scene(auth, { more: more({ cert, key: other }) }), /tls\.cert: is not for the key/)
    const old = selfSigned(['app.example.com'], { days: -1 })
    const paths = scene(auth, { more: more(old) }).warnings.map(({ path }) => path)
    assert.ok(paths.includes('provider.tls.cert'))
  })
})

test('a secret that is too short for HS256 is an error of the configuration', () => {
  assert.throws(
    () => scene({ method: 'client_secret_jwt', secret: 'x'.repeat(31) }),
    /clientAuth\.secret: must have at least 32 bytes/,
  )
})
