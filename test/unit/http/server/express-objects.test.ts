import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { test } from 'node:test'
import express from 'express'
import request from 'supertest'
import { createServerObjects } from '../../../../src/http/server/express-objects.ts'

test('a request and its response have the prototypes of the app before it sees them, keep them, and have all its methods', async () => {
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
  const ask = async (status: number) => {
    const { body } = await request(server).get('/hello').set('accept', 'text/x').expect(status)
    assert.deepEqual(body, { path: '/hello', type: 'text/x' })
  }

  await ask(201)
  app = appThatAnswers(202)
  await ask(202)
  assert.deepEqual(before, [true, true, true, true])
  assert.deepEqual(kept, before, 'Express sets no other prototypes')
})
