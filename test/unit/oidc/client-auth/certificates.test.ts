import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type CertificateMemory, createCertificates } from '../../../../src/oidc/client-auth/certificates.ts'

type CertificatePair = NonNullable<ReturnType<CertificateMemory['get']>>['used']

const HOUR_MS = 3_600_000
const START = 1_800_000_000_000

/** Files of a certificate and its key, on a clock that the test moves. */
function setUp() {
  const clock = { at: START }
  const pair = (thumbprint: string, notAfter = START + 24 * HOUR_MS) =>
    ({ thumbprint, notAfter }) as CertificatePair
  const files: { pair: CertificatePair | undefined } = { pair: pair('old', START + HOUR_MS) }
  const lines: [level: string, text: string, fields: object][] = []
  const observed: number[] = []
  const log = {
    info: (fields: object, text: string) => void lines.push(['info', text, fields]),
    warn: (fields: object, text: string) => void lines.push(['warn', text, fields]),
  }
  const certificates: CertificateMemory = new Map()
  const create = () =>
    createCertificates(() => files.pair, {
      ...{ issuer: 'https://id.test', clientId: 'shop', certificates, now: () => clock.at },
      log: log as never,
      observeCertificate: (notAfter: number) => void observed.push(notAfter),
    })
  const told = () => lines.splice(0).map(([level, text]) => `${level} ${text}`)
  return { ...create(), create, clock, pair, files, told, observed }
}

test('a new pair of files is used from its first use on, and each pair is told once', () => {
  const { current, create, files, pair, told, observed } = setUp()
  assert.equal(current().thumbprint, 'old')
  assert.equal(create().current().thumbprint, 'old', 'for the next configuration too')
  files.pair = pair('new')
  assert.equal(current().thumbprint, 'new')
  assert.equal(current().thumbprint, 'new')
  assert.deepEqual(told(), Array(2).fill('info the client authenticates with this certificate'))
  assert.deepEqual(observed, [START + HOUR_MS, START + 24 * HOUR_MS])
})

test('a pair that does not belong together is told once, and the one before is used on', () => {
  const { current, files, pair, told } = setUp()
  told()
  files.pair = undefined
  for (let use = 0; use < 3; use += 1) assert.equal(current().thumbprint, 'old')
  assert.equal(told().length, 1)
  files.pair = pair('new')
  assert.equal(current().thumbprint, 'new')
  files.pair = undefined
  assert.equal(current().thumbprint, 'new')
  assert.equal(told().filter((line) => line.startsWith('warn')).length, 1, 'and once more after a whole one')
})

test('the first pair must be whole', () => {
  const log = { info() {}, warn() {} }
  assert.throws(
    () =>
      createCertificates(() => undefined, {
        ...{ issuer: 'https://id.test', clientId: 'shop', certificates: new Map(), now: () => START },
        log: log as never,
      }),
    { code: 'provider_rejected' },
  )
})

test('a new certificate that the provider refuses is tried again each minute, the one before used meanwhile', () => {
  const { current, refused, files, pair, clock, told } = setUp()
  files.pair = pair('new')
  assert.equal(current().thumbprint, 'new')
  told()
  refused('new')
  assert.equal(current().thumbprint, 'old')
  clock.at += 59_999
  assert.equal(current().thumbprint, 'old')
  clock.at += 1
  assert.equal(current().thumbprint, 'new')
  refused('new')
  assert.equal(current().thumbprint, 'old')
  assert.equal(told().length, 1, 'it is told once')
})

test('the certificate before is never used beyond its end', () => {
  const { current, refused, files, pair, clock, told } = setUp()
  files.pair = pair('new')
  current()
  clock.at = START + HOUR_MS - 30_000
  refused('new')
  assert.equal(current().thumbprint, 'old')
  clock.at = START + HOUR_MS
  assert.equal(current().thumbprint, 'new')
  told()
  refused('new')
  assert.equal(current().thumbprint, 'new')
  assert.deepEqual(told(), [], 'there is none to go back to')
})

test('when the certificate before is refused too, the new one may be known by now: it is tried at once', () => {
  const { current, refused, files, pair, clock, told } = setUp()
  files.pair = pair('new')
  current()
  refused('new')
  told()
  clock.at += 1_000
  assert.equal(current().thumbprint, 'old')
  refused('old')
  assert.equal(current().thumbprint, 'new')
  refused('new')
  assert.equal(current().thumbprint, 'old')
  assert.deepEqual(told(), [], 'each is told once')
})

test('a refusal of the certificate before, or of the only one, changes nothing', () => {
  const { current, refused, files, pair } = setUp()
  refused('old')
  assert.equal(current().thumbprint, 'old')
  files.pair = pair('new')
  current()
  refused('old')
  assert.equal(current().thumbprint, 'new')
})
