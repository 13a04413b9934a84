import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { steadyTest } from '../../../kit/steady.ts'
import { rawClient, rawUpstream } from '../../../kit/upstream/sockets.ts'
import { closing, handshake, openTunnel, SWITCHED, tunnelTo } from '../../../kit/upstream/tunnel-kit.ts'

describe('a tunnel through which nothing passes', { concurrency: true }, () => {
  const timeout = { connectMs: 2_000, responseMs: 30_000, idleMs: 300 }

  test('is closed with 1001 after the idle timeout of its route', async (t) => {
    const { client, far, tunnel } = await openTunnel(t, { route: { timeout } })
    const told = await Promise.all([closing(client), closing(far)])
    assert.deepEqual(told, [
      [1001, 'idle for too long'],
      [1001, ''],
    ])
    while (tunnel.count() > 0) await setImmediate()
  })

  for (const from of ['client', 'far'] as const)
    steadyTest(`stays open while the ${from === 'far' ? 'upstream' : 'client'} pings`, async (t) => {
      const opened = await openTunnel(t, { route: { timeout } })
      const pings = setInterval(() => opened[from].ping(), 100)
      t.after(() => clearInterval(pings))
      let pongs = 0
      await new Promise<void>((resolve, reject) => {
        opened[from].on('pong', () => ++pongs === 8 && resolve())
        opened.client.once('close', () => reject(new Error(`closed after ${pongs} pongs`)))
      })
      assert.equal(opened.client.readyState, opened.client.OPEN)
    })

  test('is dropped whole when neither side answers', async (t) => {
    const upstream = await rawUpstream(t, (socket) => socket.write(`${SWITCHED}\r\n`))
    const { port, tunnel } = await tunnelTo(t, upstream.origin, { route: { timeout } })
    const client = rawClient(t, port, handshake())
    await Promise.all([client.closed, upstream.closed[0]])
    while (tunnel.count() > 0) await setImmediate()
  })
})

test('a slow client holds its upstream back', async (t) => {
  const { client, far } = await openTunnel(t)
  client.pause()
  const message = Buffer.alloc(2 ** 20)
  for (let sent = 0; sent < 100; sent++) far.send(message)
  let before = -1
  // Once the buffers of the two kernels are full, nothing moves any more.
  for (let waiting = far.bufferedAmount; waiting !== before; ) {
    before = waiting
    await new Promise((resolve) => setTimeout(resolve, 300))
    waiting = far.bufferedAmount
  }
  assert.ok(before > 60 * 2 ** 20, `only ${before} bytes wait at the upstream`)
  const received = new Promise<number>((resolve) => {
    let bytes = 0
    client.on('message', (data) => {
      bytes += (data as Buffer).length
      if (bytes === 100 * 2 ** 20) resolve(bytes)
    })
  })
  client.resume()
  assert.equal(await received, 100 * 2 ** 20)
})
