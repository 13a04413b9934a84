import '../kit/untracked.ts'
import assert from 'node:assert/strict'
import { request } from 'node:http'
import { createServer } from 'node:net'
import { type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { seededRandom } from '../chaos/seeded-random.ts'
import { answerSteadily, clientResets } from '../kit/endurance/client-resets.ts'
import { assertBackAt, type Measured, startMeasured } from '../kit/endurance/kit.ts'
import { NOT_MEASURABLE } from '../kit/endurance/process-readings.ts'
import { openHttpUpstream, openUpstream } from '../kit/endurance/raw-http.ts'
import { dieAsAsked, upstreamResets } from '../kit/endurance/upstream-resets.ts'

const RESETS = 5_000

test('after 10000 connections reset by clients and upstreams, files and heap are where they were', {
  skip: NOT_MEASURABLE,
  timeout: 300_000,
}, async (t) => {
  const measured = await startShaky(t)
  const random = seededRandom(20_261_121)
  // The first errors of each kind load and compile what they need.
  await clientResets(measured, random.branch('warm-up'), 700)
  await upstreamResets(measured, random.branch('warm-up'), 700)
  await delay(2_000)
  const before = await measured.standing()

  const began = performance.now()
  t.diagnostic(`clients: ${await clientResets(measured, random.branch('clients'), RESETS)}`)
  t.diagnostic(`upstreams: ${await upstreamResets(measured, random.branch('upstreams'), RESETS)}`)
  const seconds = (performance.now() - began) / 1_000

  t.diagnostic(`${2 * RESETS} resets in ${seconds.toFixed(1)} s; ${await assertBackAt(before, measured)}`)
  for (const path of ['/steady/ok', '/fresh/ok']) assert.equal(await statusOf(measured, path), 200, path)
})

/** A Cloakroom before an upstream that works, one that resets as it is told, and one that resets everything. */
async function startShaky(t: TestContext): Promise<Measured> {
  const steady = await openHttpUpstream(t, answerSteadily)
  const mortal = await openUpstream(t, createServer(dieAsAsked))
  const closed = await openUpstream(
    t,
    createServer((socket) => socket.resetAndDestroy()),
  )
  // An upstream that fails on purpose must not be left alone for it.
  const common = { resource: 'orders', breaker: { failures: 0 } }
  const measured = await startMeasured(t, {
    resources: {
      orders: { resource: 'https://orders.example.com' },
      fresh: { resource: 'https://fresh.example.com' },
    },
    routes: [
      { ...common, path: '/steady', upstream: steady.origin },
      { ...common, path: '/fresh', upstream: steady.origin, resource: 'fresh' },
      { ...common, path: '/mortal', upstream: mortal.origin },
      { ...common, path: '/closed', upstream: closed.origin },
    ],
  })
  // From here on the token for these has a long life; those of the other resource will have a short one.
  assert.equal(await statusOf(measured, '/steady/ok'), 200)
  return measured
}

function statusOf({ port, fields }: Measured, path: string): Promise<number> {
  return new Promise((resolve, reject) => {
    request({ port, host: '127.0.0.1', path, headers: fields, agent: false }, (res) => {
      res.resume().on('end', () => resolve(res.statusCode!))
    })
      .on('error', reject)
      .end()
  })
}
