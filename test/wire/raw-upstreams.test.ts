import assert from 'node:assert/strict'
import { test } from 'node:test'
import { UPSTREAM_CASES } from './cases/upstreams.ts'
import { inTime, openRawClient } from './raw-kit.ts'
import { playTable } from './suite.ts'
import { fillInText, get } from './wire-case.ts'
import { startWorld } from './world.ts'

playTable('upstreams', UPSTREAM_CASES)

test('B9: twenty users at once over few connections get their own answers, whatever the upstream adds to some', async (t) => {
  const world = await startWorld()
  t.after(() => world.close())
  const poisoned = Array.from({ length: 10 }, (_, n) => `/api/admin/poisoned-${n}`)
  for (const target of poisoned) {
    const own = `HTTP/1.1 200 OK\r\nContent-Length: ${target.length}\r\n\r\n${target}`
    world.upstream.scripts.set(target, { reply: `${own}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil` })
  }
  const targets = poisoned.flatMap((target, n) => [target, `/api/admin/plain-${n}`])
  const answers = await Promise.all(
    targets.map(async (target, n) => {
      const client = openRawClient(world.port, () => ['GET'])
      const cookie = n % 2 === 0 ? '{{cookie}}' : '{{bob}}'
      const fields = `Host: app.example.test\r\nCookie: ${cookie}\r\nX-CSRF: 1\r\nConnection: close\r\n`
      client.write(fillInText(get(target, fields), world.values))
      await inTime(client.closed, () => target)
      return client.received().answers.map(({ body }) => body)
    }),
  )
  answers.forEach((bodies, n) => {
    assert.equal(bodies.length, 1)
    assert.ok(bodies[0]?.includes(targets[n] ?? ''), `${targets[n]}: ${bodies[0]}`)
  })
  assert.equal(
    world.upstream.requests.filter(({ startLine }) => startLine.includes('/api/admin/')).length,
    20,
  )
})
