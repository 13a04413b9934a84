import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import express from 'express'
import { objectsBornFor } from '../../../src/http/express-objects.ts'

test('a request and its response have the prototypes of the app before it sees them, and all its methods', async (t) => {
  const app = express()
  app.get('/hello', (req, res) => void res.status(201).json({ path: req.path, type: req.get('accept') }))
  const before: boolean[] = []
  const server = createServer(objectsBornFor(app))
  server.on('request', (req, res) => {
    before.push(Object.getPrototypeOf(req) === app.request, Object.getPrototypeOf(res) === app.response)
    app(req as express.Request, res as express.Response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())

  const { port } = server.address() as AddressInfo
  const answer = await fetch(`http://127.0.0.1:${port}/hello`, {
    headers: { accept: 'text/x', connection: 'close' },
  })

  assert.deepEqual(before, [true, true])
  assert.equal(answer.status, 201)
  assert.deepEqual(await answer.json(), { path: '/hello', type: 'text/x' })
})
