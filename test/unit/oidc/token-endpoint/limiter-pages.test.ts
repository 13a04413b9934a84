import assert from 'node:assert/strict'
import { test } from 'node:test'
import { held, refusal, setUp } from '../../../kit/provider/limiter-kit.ts'

/** Asks for one session after another, each of which is shown a page. */
function pages() {
  const { limiter, seen, tick } = setUp()
  const failure = new Error('unexpected response content-type')
  const call = (kind: 'page' | 'refused', holder?: string) =>
    limiter
      .call(
        'refresh_token',
        () => Promise.reject(failure),
        () => ({ kind, holder }),
      )
      .catch((error) => error)
  const page = (...holders: (string | undefined)[]) =>
    holders.reduce<Promise<unknown>>(
      (before, holder) => before.then(() => call('page', holder)),
      Promise.resolve(),
    )
  return { limiter, seen, tick, page, answer: () => call('refused') }
}

test('pages for five sessions in a row are in everybody’s way: the breaker opens', async () => {
  const { limiter, seen, page } = pages()
  await page('a', 'b', 'c', 'd')
  assert.deepEqual(seen.states, [])
  await page('e')
  assert.deepEqual(seen.states, ['open'])
  assert.equal(
    (
      await refusal(
        limiter.call(
          'refresh_token',
          async () => assert.fail(),
          () => assert.fail(),
        ),
      )
    ).retryAfter,
    2,
  )
  assert.deepEqual(seen.calls, Array(5).fill('refresh_token fault'))
})

test('one session’s pages, and a call’s that is no session’s, never close the way for others', async () => {
  const { seen, page } = pages()
  for (let round = 0; round < 100; round += 1) await page('a', undefined)
  await page('b', 'a', 'c', 'b', 'd', 'a', 'b', 'c', 'd')
  assert.deepEqual(seen.states, [])
})

test('a usable answer between them begins the count anew', async () => {
  const { seen, page, answer } = pages()
  for (let round = 0; round < 5; round += 1) {
    await page('a', 'b', 'c', 'd')
    await answer()
  }
  assert.deepEqual(seen.states, [])
})

test('a page for the probe keeps it open, and one who has had a page leaves the turn to the next, a moment later', async () => {
  const { limiter, seen, tick, page } = pages()
  await page('a', 'b', 'c', 'd', 'e')
  await tick(2_000)
  await page('f')
  const next = limiter.call('refresh_token', held().script, () => assert.fail())
  assert.equal((await refusal(next)).retryAfter, 4)
  await tick(4_000)
  await page('a')
  const soon = limiter.call('refresh_token', held().script, () => assert.fail())
  assert.equal((await refusal(soon)).retryAfter, 2)
  await tick(2_000)
  assert.equal(
    await limiter.call(
      'refresh_token',
      async () => 'token',
      () => assert.fail(),
    ),
    'token',
  )
  assert.equal(seen.states.at(-1), 'closed')
})

test('of however many sessions with pages only the last are remembered', async () => {
  const { tick, page, seen } = pages()
  for (let session = 0; session < 500; session += 1) {
    await page(String(session))
    await tick(30_000)
  }
  assert.equal(seen.states.filter((state) => state === 'closed').length, 0)
  assert.ok(seen.calls.length === 500)
})
