import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { createLiveConnections, endWithSessions } from '../../../../src/proxy/session-end/live-connections.ts'
import { type BffSession, sessionHash } from '../../../../src/session/session.ts'

type Hash = BffSession['hash']
const ROUND_MS = 2_000

/** Connections of so many sessions, a store that knows all of them, and a channel. */
function scene(count: number) {
  const [sockets, streams] = [createLiveConnections(), createLiveConnections()]
  const sessions = Array.from({ length: count }, (_, n) => sessionHash(`session-${n}`))
  const alive = new Set(sessions)
  const ended: Hash[] = []
  for (const [n, session] of sessions.entries()) {
    const forget: () => void = (n % 2 ? sockets : streams).add(session, () => {
      ended.push(session)
      forget()
    })
  }
  const channel = { isLive: true, isStoreThere: true, tell: (_?: Hash) => {}, asked: 0, atOnce: 0, most: 0 }
  const start = () =>
    endWithSessions({
      connections: [sockets, streams],
      isLive: () => channel.isLive,
      onInvalidate(listener) {
        channel.tell = listener
        return () => {
          channel.tell = () => {}
        }
      },
      async exists(session) {
        channel.asked += 1
        channel.most = Math.max(channel.most, ++channel.atOnce)
        await setImmediate()
        channel.atOnce -= 1
        if (!channel.isStoreThere) throw new Error('the store is away')
        return alive.has(session)
      },
    })
  return { sessions, alive, ended, channel, start }
}

const settle = async () => {
  for (let turn = 0; turn < 100; turn++) await setImmediate()
}

test('a message about a session that only changed ends nothing, one about an ended session its connections', async (t) => {
  const { sessions, alive, ended, channel, start } = scene(3)
  t.after(start())
  channel.tell(sessions[0]!)
  channel.tell(sessionHash('unknown'))
  await settle()
  assert.deepEqual([ended, channel.asked], [[], 1])
  alive.delete(sessions[0]!)
  channel.tell(sessions[0]!)
  await settle()
  assert.deepEqual(ended, [sessions[0]])
})

test('an end whose message was missed is noticed within one round, and again when messages come', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { sessions, alive, ended, channel, start } = scene(300)
  t.after(start())
  alive.delete(sessions[0]!)
  channel.isLive = false
  channel.tell()
  await settle()
  assert.deepEqual(ended, [sessions[0]])
  assert.ok(channel.most <= 8, `${channel.most} looks at the same time`)
  alive.delete(sessions[1]!)
  t.mock.timers.tick(ROUND_MS)
  await settle()
  assert.deepEqual(ended, sessions.slice(0, 2))
  // It ends just before the messages come again.
  alive.delete(sessions[2]!)
  channel.isLive = true
  t.mock.timers.tick(ROUND_MS)
  await settle()
  assert.deepEqual(ended, sessions.slice(0, 3))
  const before = channel.asked
  t.mock.timers.tick(10 * ROUND_MS)
  await settle()
  assert.equal(channel.asked, before, 'the store is not asked while messages come')
})

test('without the store nothing ends, and it is asked again when it may be back', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { sessions, alive, ended, channel, start } = scene(100)
  t.after(start())
  alive.delete(sessions[7]!)
  channel.isStoreThere = false
  channel.isLive = false
  channel.tell()
  await settle()
  assert.deepEqual(ended, [])
  assert.ok(channel.asked <= 16, `asked ${channel.asked} times`)
  channel.isStoreThere = true
  t.mock.timers.tick(ROUND_MS)
  await settle()
  assert.deepEqual(ended, [sessions[7]])
})

test('one look that the store did not answer is made again', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { sessions, alive, ended, channel, start } = scene(1)
  t.after(start())
  alive.clear()
  channel.isStoreThere = false
  channel.tell(sessions[0]!)
  await settle()
  channel.isStoreThere = true
  t.mock.timers.tick(ROUND_MS)
  await settle()
  assert.deepEqual(ended, sessions)
})

test('a process that never heard anything looks by itself', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const { sessions, alive, ended, channel, start } = scene(2)
  channel.isLive = false
  t.after(start())
  await settle()
  alive.clear()
  t.mock.timers.tick(ROUND_MS)
  await settle()
  assert.deepEqual(ended.toSorted(), sessions.toSorted())
})
