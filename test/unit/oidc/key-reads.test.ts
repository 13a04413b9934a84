import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createKeyReads, type ReadAnswer } from '../../../src/oidc/key-reads.ts'

const URL_A = 'https://id.example.com/keys'

function setUp() {
  const at = { time: 0, status: 200, text: '{"keys":[]}', isAway: false }
  let reads = 0
  const readKeys = createKeyReads<object>(
    async () => {
      reads += 1
      if (at.isAway) throw new TypeError('fetch failed')
      return { response: new Response(null, { status: at.status }), text: at.text }
    },
    () => at.time,
  )
  const ask = (url = URL_A) => readKeys(url, {}).catch((error: unknown) => error as ReadAnswer)
  return { at, ask, reads: () => reads }
}

test('who asks at the same time, or within a second, gets the same answer', async () => {
  const { at, ask, reads } = setUp()
  const answers = await Promise.all([ask(), ask(), ask()])
  assert.equal(new Set(answers).size, 1)
  at.time = 999
  await ask()
  assert.equal(reads(), 1)
  at.time = 1_000
  await ask()
  assert.equal(reads(), 2)
})

test('another key set is another read', async () => {
  const { ask, reads } = setUp()
  await Promise.all([ask(), ask(`${URL_A}/other`)])
  assert.equal(reads(), 2)
})

for (const [name, change] of [
  ['no answer', { isAway: true }],
  ['an error', { status: 503 }],
  ['a page', { text: '<html>' }],
  ['something else', { text: '{"keys":{}}' }],
  ['nothing', { text: 'null' }],
] as const)
  test(`${name} in place of keys: asked again after 1, 2, 4 … 30 s, and at once on time when there are keys`, async () => {
    const { at, ask, reads } = setUp()
    Object.assign(at, change)
    const seen: number[] = []
    for (; at.time < 120_000; at.time += 500) {
      const before = reads()
      await ask()
      if (reads() > before) seen.push(at.time / 1_000)
    }
    assert.deepEqual(seen, [0, 1, 3, 7, 15, 31, 61, 91])
    Object.assign(at, { isAway: false, status: 200, text: '{"keys":[]}' })
    at.time = 121_000
    await ask()
    at.time = 122_000
    await ask()
    assert.equal(reads(), seen.length + 2, 'the wait is a second again')
  })
