import assert from 'node:assert/strict'
import { test } from 'node:test'
import { changed, load } from '../../../kit/config/base-config.ts'
import { describeMutations } from '../../../kit/config/mutations.ts'

const ISSUER = 'issuer: https://id.example.com'

describeMutations('how the authorization response comes', [
  [ISSUER, `${ISSUER}\n  responseMode: fragment`, 'provider.responseMode', /must be one of|query, form_post/],
  [ISSUER, `${ISSUER}\n  responseType: code id_token`, 'provider.responseType', /must not stand in a URL/],
  [
    ISSUER,
    `${ISSUER}\n  responseMode: jwt\n  responseType: code id_token`,
    'provider.responseType',
    /needs "responseMode: form_post"/,
  ],
  [ISSUER, `${ISSUER}\n  responseType: id_token`, 'provider.responseType', /must be/],
])

test('every mode is accepted, and an ID token by form_post', () => {
  for (const lines of [
    'responseMode: form_post',
    'responseMode: jwt',
    'responseMode: form_post\n  responseType: code id_token',
    'dpop: provider',
    'dpop: end-to-end',
  ])
    assert.deepEqual(load(changed(ISSUER, `${ISSUER}\n  ${lines}`)).warnings, [])
})

test('what Entra ID does not have is warned of', () => {
  const entra = 'issuer: https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0'
  const { warnings } = load(changed(ISSUER, `${entra}\n  responseMode: jwt\n  dpop: provider`))
  const paths = warnings.map(({ path }) => path)
  assert.ok(paths.includes('provider.responseMode') && paths.includes('provider.dpop'), paths.join())
})
