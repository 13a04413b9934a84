import assert from 'node:assert/strict'
import { test } from 'node:test'
import { changed, load } from '../../kit/config/base-config.ts'

function provider(issuer: string, more = '') {
  const text = changed('issuer: https://id.example.com\n', `issuer: ${issuer}\n${more}`)
  return load(text).config.provider
}

const ENTRA = [
  ...['login.microsoftonline.com', 'login.microsoftonline.us', 'login.microsoftonline.de'],
  ...['login.partner.microsoftonline.cn', 'sts.windows.net'],
]

test('signInScopes auto: the first resource on the hosts of Entra ID, all of them elsewhere', () => {
  for (const host of ENTRA) {
    assert.equal(provider(`https://${host}/TENANT/v2.0`).signInScopes, 'first', host)
    assert.equal(provider(`https://${host}/TENANT/v2.0`, '  signInScopes: all\n').signInScopes, 'all', host)
  }
  for (const host of ['contoso.ciamlogin.com', 'contoso.b2clogin.com', 'a.login.microsoftonline.com']) {
    assert.equal(provider(`https://${host}/TENANT/v2.0`).signInScopes, 'all', host)
    assert.equal(provider(`https://${host}/TENANT/v2.0`, '  signInScopes: first\n').signInScopes, 'first')
  }
})

test('offlineConsent auto: never on Entra ID and what is built on it, unless it says always', () => {
  for (const host of [...ENTRA, 'contoso.ciamlogin.com', 'contoso.b2clogin.com']) {
    const issuer = `https://${host}/TENANT/v2.0`
    assert.equal(provider(issuer).offlineConsent, 'never', host)
    assert.equal(provider(issuer, '  offlineConsent: always\n').offlineConsent, 'always', host)
  }
  assert.equal(provider('https://id.example.com').offlineConsent, 'auto')
})
