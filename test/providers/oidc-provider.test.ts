import assert from 'node:assert/strict'
import { before, describe, test } from 'node:test'
import { skipWithoutRedis } from '../kit/store/redis.ts'
import { oidcProvider } from './oidc-provider.ts'
import { ROW_IDS } from './provider.ts'
import { type ProviderResult, runProvider } from './suite.ts'

describe('oidc-provider with its strict defaults, two replicas and the documented config', {
  skip: skipWithoutRedis(),
}, () => {
  let result: ProviderResult
  before(async () => {
    result = await runProvider(oidcProvider)
  })

  for (const row of ROW_IDS)
    test(`${row}: as it must be`, () => {
      const found = result.rows.find((one) => one.row === row)
      const expected = row in oidcProvider.limits ? 'limit' : 'ok'
      assert.equal(found?.outcome, expected, found?.detail ?? 'not played')
    })
})
