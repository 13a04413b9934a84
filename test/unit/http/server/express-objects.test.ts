import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import express from 'express'
import { createServerObjects } from '../../../../src/http/server/express-objects.ts'

test('a request and its response have the prototypes of the app before it sees them, keep them, and have all its methods', async (t) => {
  const { objects, adopt } = createServerObjects()
  const before: boolean[] = []
  const kept: boolean[] = []
  function appThatAnswers(status: number) {
    const app = express()
    app.get('/hello', (req, res) => {
      kept.push(Object.getPrototypeOf(req) === app.request, Object.getPrototypeOf(res) === app.response)
      res.status(status).json({ path: req.path, type: req.get('accept') })
    })
    adopt(app)
    return app
  }
  let app = appThatAnswers(201)
  const server = createServer(objects)
  server.on('request', (req, res) => {
    before.push(Object.getPrototypeOf(req) === app.request, Object.getPrototypeOf(res) === app.response)
    app(req as express.Request, res as express.Response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  const { port } = server.address() as AddressInfo
  const ask = () =>
    fetch(`http://127.0.0.1:${port}/hello`, { headers: { accept: 'text/x', connection: 'close' } })

  const first = await ask()
  assert.deepEqual([first.status, await first.json()], [201, { path: '/hello', type: 'text/x' }])
  app = appThatAnswers(202)
  const second = await ask()
  assert.deepEqual([second.status, await second.json()], [202, { path: '/hello', type: 'text/x' }])
  assert.deepEqual(before, [true, true, true, true])
  assert.deepEqual(kept, before, 'Express sets no other prototypes')
})
