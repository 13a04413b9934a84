import assert from 'node:assert/strict'
import { it } from 'node:test'
import { listenOnLoopback } from '../../../src/demo/loopback-server.ts'

it('a loopback server whose listener cannot be made listens no more', async () => {
  let origin = ''
  const broken = listenOnLoopback((itsOrigin) => {
    origin = itsOrigin
    throw new Error('no assets')
  })
  await assert.rejects(broken, /no assets/)
  await assert.rejects(fetch(origin))
})
