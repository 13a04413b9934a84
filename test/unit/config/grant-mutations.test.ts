import assert from 'node:assert/strict'
import { test } from 'node:test'
import { changed, load } from '../../kit/config/base-config.ts'
import { describeMutations } from '../../kit/config/mutations.ts'

const ORDERS = 'orders: { scopes: [api://orders/.default], audience: api://orders }'
const BILLING = 'billing: { scopes: [api://billing/.default] }'
const SCOPES = 'scopes: [api://billing/.default]'
const exchanged = (more: string) => `billing: { ${SCOPES}, grant: token_exchange${more} }`

describeMutations('the grant of a resource', [
  [BILLING, exchanged(''), 'resources.billing.subject', /^is required: the name of the resource/],
  [
    BILLING,
    exchanged(', subject: order'),
    'resources.billing.subject',
    /no resource "order" \(did you mean "orders"\?\)/,
  ],
  [BILLING, exchanged(', subject: billing'), 'resources.billing.subject', /with "grant: refresh_token"/],
  [
    `${ORDERS}\n  ${BILLING}`,
    `orders: { scopes: [api://orders/.default], grant: client_credentials }\n  ${exchanged(', subject: orders')}`,
    'resources.billing.subject',
    /must name a resource with "grant: refresh_token" \(got "orders"\)/,
  ],
  [
    BILLING,
    exchanged(', subject: orders, exchange: obo'),
    'resources.billing.exchange',
    /rfc8693 or on_behalf_of/,
  ],
  [BILLING, `billing: { ${SCOPES}, subject: orders }`, 'resources.billing.subject', /token_exchange" only/],
  [
    BILLING,
    `billing: { ${SCOPES}, exchange: rfc8693 }`,
    'resources.billing.exchange',
    /"grant: token_exchange" only/,
  ],
])

test("a client that cannot prove itself gets no tokens of its own: that would be everybody's", () => {
  const client = 'method: client_secret_post\n    secret: { env: CLIENT_SECRET }'
  const text = changed(client, 'method: none').replace(
    BILLING,
    `billing: { ${SCOPES}, grant: client_credentials }`,
  )
  assert.throws(() => load(text), /resources\.billing\.grant: needs a client that can prove itself/)
})

test("a client that cannot prove itself acts on nobody's behalf, and is told the cure", () => {
  const client = 'method: client_secret_post\n    secret: { env: CLIENT_SECRET }'
  const told =
    /resources\.billing\.grant: with "exchange: on_behalf_of" needs a client that can prove itself: provider\.clientAuth\.method is none; set that to client_secret_post or private_key_jwt/
  const explicit = changed(client, 'method: none').replace(
    BILLING,
    exchanged(', subject: orders, exchange: on_behalf_of'),
  )
  assert.throws(() => load(explicit), told)
  // At Entra ID it is what is done unless the operator says otherwise.
  const implied = changed(client, 'method: none')
    .replace(BILLING, exchanged(', subject: orders'))
    .replace('https://id.example.com', 'https://login.microsoftonline.com/tenant/v2.0')
  assert.throws(() => load(implied), told)
  const other = changed(client, 'method: none').replace(BILLING, exchanged(', subject: orders'))
  assert.equal(load(other).config.resources.billing?.exchange, 'rfc8693')
})

test('a token exchange is on-behalf-of at Entra ID and RFC 8693 elsewhere, unless the operator says', () => {
  const text = changed(BILLING, exchanged(', subject: orders'))
  const entra = text.replace('https://id.example.com', 'https://login.microsoftonline.com/tenant/v2.0')
  const explicit = entra.replace('subject: orders', 'subject: orders, exchange: rfc8693')
  const exchangeOf = (config: string) => load(config).config.resources.billing?.exchange
  assert.deepEqual([text, entra, explicit].map(exchangeOf), ['rfc8693', 'on_behalf_of', 'rfc8693'])
})

test('a resource that only serves to be exchanged is in use', () => {
  const routed = changed(BILLING, exchanged(', subject: orders')).replace(
    '    resource: orders\n',
    '    resource: billing\n',
  )
  assert.deepEqual(load(routed).warnings, [])
})
