import assert from 'node:assert/strict'
import { test } from 'node:test'
import express from 'express'
import request from 'supertest'
import { createCors } from '../../../src/http/origins.ts'

const PARTNER = 'https://partner.test'

/** Asks an app whose every answer is `ok`, behind CORS for these origins. */
async function ask(allowedOrigins: string[], headers: Record<string, string>) {
  const app = express()
  app.use(createCors(allowedOrigins, { set: () => undefined }))
  app.use((_req, res) => void res.end('ok'))
  const { headers: answered } = await request(app).get('/').set(headers)
  return { vary: answered.vary, allowed: answered['access-control-allow-origin'] }
}

test('where another origin is allowed, every answer says that it depends on the origin', async () => {
  for (const [headers, allowed] of [
    [{}, undefined],
    [{ origin: PARTNER }, PARTNER],
    [{ origin: 'https://evil.test' }, undefined],
    [{ origin: 'null' }, undefined],
  ] as const)
    assert.deepEqual(await ask([PARTNER], headers), { vary: 'Origin', allowed })
})

test('where none is, no answer depends on it, and none says so', async () => {
  for (const headers of [{}, { origin: PARTNER }])
    assert.deepEqual(await ask([], headers as Record<string, string>), {
      vary: undefined,
      allowed: undefined,
    })
})
