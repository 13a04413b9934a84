import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createProviderMemory } from '../../../../src/demo/provider/provider-memory.ts'

describe("the provider's memory", () => {
  it('forgets what expired and keeps what has no end', async () => {
    const memory = createProviderMemory()('RefreshToken')
    await memory.upsert('gone', {}, -1)
    await memory.upsert('kept', {})
    assert.equal(await memory.find('gone'), undefined)
    assert.deepEqual(await memory.find('kept'), {})
  })

  it('forgets every token of a revoked grant, of whatever kind, and no others', async () => {
    const memoryFor = createProviderMemory()
    const [codes, tokens] = [memoryFor('AuthorizationCode'), memoryFor('RefreshToken')]
    await codes.upsert('c', { grantId: 'g1' }, 60)
    await tokens.upsert('t1', { grantId: 'g1' }, 60)
    await tokens.upsert('t2', { grantId: 'g2' }, 60)
    await tokens.revokeByGrantId('g1')
    assert.equal(await codes.find('c'), undefined)
    assert.equal(await tokens.find('t1'), undefined)
    assert.ok(await tokens.find('t2'))
  })

  it('still knows a consumed token, so that its second use is noticed', async () => {
    const tokens = createProviderMemory()('RefreshToken')
    await tokens.upsert('t', { grantId: 'g' }, 60)
    await tokens.consume('t')
    assert.ok((await tokens.find('t'))?.consumed)
  })

  it('finds a session by its uid until it is destroyed', async () => {
    const sessions = createProviderMemory()('Session')
    await sessions.upsert('old-id', { uid: 'u' }, 60)
    await sessions.upsert('new-id', { uid: 'u' }, 60)
    await sessions.destroy('old-id')
    assert.ok(await sessions.findByUid('u'))
    await sessions.destroy('new-id')
    assert.equal(await sessions.findByUid('u'), undefined)
  })
})
