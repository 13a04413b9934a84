import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  createOfflineConsent,
  type OfflineConsentMemory,
} from '../../../../src/oidc/sign-in/offline-consent.ts'

const HOUR_MS = 3_600_000

type Settings = { issuer?: string; offlineConsent?: 'auto' | 'always' | 'never'; scopes?: string[] }

function consent(settings: Settings = {}) {
  const memory: OfflineConsentMemory = new Map()
  const clock = { at: 1_000 }
  const provider = {
    ...{ issuer: 'https://idp.example.com', clientId: 'shop', offlineConsent: 'auto' as const },
    ...{ scopes: ['openid', 'offline_access'], ...settings },
  }
  const create = () => createOfflineConsent(provider, { memory, monotonicNow: () => clock.at })
  return { ...create(), create, clock }
}

test('auto: a sign-in without refresh token is repeated once, and where that helps the next ones ask for consent at once', () => {
  const { promptFor, isToBeRepeated, create } = consent()
  assert.equal(promptFor(undefined, {}), undefined)
  assert.equal(isToBeRepeated({}, false), true)
  assert.equal(promptFor(undefined, { isRepeated: true }), 'consent')
  assert.equal(isToBeRepeated({ isRepeated: true, prompt: 'consent' }, true), false)
  assert.equal(promptFor(undefined, {}), 'consent')
  assert.equal(promptFor('select_account', {}), 'select_account consent')
  assert.equal(create().promptFor('login', {}), 'login consent', 'for the next configuration too')
})

test('auto: a repetition that does not help is not repeated, and after three in a row there are none for an hour', () => {
  const { promptFor, isToBeRepeated, clock } = consent()
  for (let attempt = 0; attempt < 3; attempt += 1) {
    assert.equal(isToBeRepeated({}, false), true)
    assert.equal(isToBeRepeated({ isRepeated: true, prompt: 'consent' }, false), false)
  }
  assert.equal(isToBeRepeated({}, false), false)
  assert.equal(promptFor(undefined, {}), undefined)
  clock.at += HOUR_MS
  assert.equal(isToBeRepeated({}, false), true)
})

test('auto: a provider that refuses the repetitions is signed in to without them after three', () => {
  const { promptFor, isToBeRepeated, refused } = consent()
  for (let attempt = 0; attempt < 3; attempt += 1) {
    assert.equal(isToBeRepeated({}, false), true)
    refused({ isRepeated: true, prompt: 'consent' })
    refused({})
  }
  assert.equal(isToBeRepeated({}, false), false)
  assert.equal(promptFor(undefined, {}), undefined)
})

test('auto: one user who declines does not take it from the others', () => {
  const { promptFor, isToBeRepeated } = consent()
  isToBeRepeated({ isRepeated: true }, true)
  isToBeRepeated({ isRepeated: true }, false)
  assert.equal(promptFor(undefined, {}), 'consent')
})

test('prompt=none stands alone: nothing is added to it, and it is not repeated', () => {
  for (const offlineConsent of ['auto', 'always'] as const) {
    const { promptFor, isToBeRepeated } = consent({ offlineConsent })
    isToBeRepeated({ isRepeated: true }, true)
    assert.equal(promptFor('none', {}), 'none')
    assert.equal(isToBeRepeated({ prompt: 'none' }, false), false)
  }
})

test('who has asked for consent already is not sent round again; who makes an account is asked afterwards', () => {
  const { promptFor, isToBeRepeated } = consent({ offlineConsent: 'always' })
  assert.equal(promptFor(undefined, {}), 'consent')
  assert.equal(isToBeRepeated({ prompt: 'consent' }, false), false)
  assert.equal(isToBeRepeated({ prompt: 'login consent' }, false), false)
  assert.equal(promptFor('create', {}), 'create')
  assert.equal(isToBeRepeated({ prompt: 'create' }, false), true)
})

test('nothing is asked or repeated without offline_access, and with never', () => {
  const cases: Settings[] = [
    { scopes: ['openid'] },
    { offlineConsent: 'never' },
    { scopes: ['openid'], offlineConsent: 'always' },
  ]
  for (const settings of cases) {
    const { promptFor, isToBeRepeated } = consent(settings)
    assert.equal(isToBeRepeated({}, false), false, JSON.stringify(settings))
    assert.equal(promptFor(undefined, {}), undefined, JSON.stringify(settings))
  }
})
