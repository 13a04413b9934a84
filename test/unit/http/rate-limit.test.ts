import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import express, { type ErrorRequestHandler } from 'express'
import request from 'supertest'
import { BffError } from '../../../src/errors.ts'
import { createRateLimits } from '../../../src/http/rate-limit.ts'
import { clientNetwork } from '../../../src/http/server/request-guard.ts'

describe('who counts as one client', () => {
  const sameClient: [what: string, ...addresses: string[]][] = [
    ['an IPv4 address', '192.0.2.7', '::ffff:192.0.2.7', '::FFFF:c000:207', '0:0:0:0:0:ffff:192.0.2.7'],
    [
      'the /64 of an IPv6 address, in every spelling',
      '2001:db8:1:2::',
      '2001:DB8:1:2:ffff:ffff:ffff:ffff',
      '2001:0db8:0001:0002:0:0:0:1',
      '2001:db8:1:2::192.0.2.7',
    ],
    ['a link-local address, whatever its zone', 'fe80::1', 'fe80::2%eth0', 'fe80::3%1'],
    ['what is near zero', '::', '::1', '0::2'],
  ]
  for (const [what, first = '', ...others] of sameClient)
    test(what, () => {
      for (const other of others) assert.equal(clientNetwork(other), clientNetwork(first), other)
    })

  test('neighbours are others', () => {
    const names = ['192.0.2.7', '192.0.2.8', '2001:db8:1:2::7', '2001:db8:1:3::7', '2001:db8::1:2', '::1']
    assert.equal(new Set(names.map(clientNetwork)).size, names.length)
  })

  test('what is no address is one client by its text', () => {
    for (const text of ['', 'unix', '1:2', '[::1]', '::1]/@evil', 'a:b%c'])
      assert.equal(clientNetwork(text), text)
  })
})

describe('the handler of a limited endpoint', () => {
  const refusals: string[] = []
  const named: string[] = []
  const wait = { ms: 0 }
  const { login, ...others } = createRateLimits({
    limits: { login: { requests: 20, perMs: 60_000 } },
    countRequests: () => async (name) => {
      named.push(name)
      return wait.ms
    },
    clientAddress: () => '2001:db8::7',
    nameOf: (client) => `name of ${client}`,
    refused: (endpoint) => refusals.push(endpoint),
  })
  const app = express()
  app.get('/', login!, (_req, res) => {
    named.push('passed')
    res.end()
  })
  const errors: unknown[] = []
  const takeError: ErrorRequestHandler = (error, _req, res, _next) => {
    errors.push(error)
    res.end()
  }
  app.use(takeError)
  const ask = () => request(app).get('/')

  test('an endpoint without a limit has no handler', () => {
    assert.deepEqual(others, {})
  })

  test('a request within the limit goes on', async () => {
    await ask()
    assert.deepEqual(named.splice(0), ['name of 2001:db8:0:0::/64', 'passed'])
    assert.deepEqual(refusals, [])
  })

  for (const [ms, seconds] of [
    [1, 1],
    [999, 1],
    [1000, 1],
    [59_001, 60],
  ] as const)
    test(`a wait of ${ms} ms is told as ${seconds} s`, async () => {
      wait.ms = ms
      await ask()
      const [error, ...more] = errors.splice(0)
      assert.ok(error instanceof BffError && more.length === 0)
      assert.deepEqual([error.code, error.retryAfterSeconds], ['rate_limited', seconds])
      assert.deepEqual(refusals.splice(0), ['login'])
      assert.deepEqual(named.splice(0), ['name of 2001:db8:0:0::/64'])
    })
})
