import assert from 'node:assert/strict'
import { test } from 'node:test'
import { traceWalks } from './kit/house/walk-scene.ts'

/** Most files of src/ that a GET passes through with session and access token in memory. */
const HOT_FILES = 25
/** The same with an expired access token. */
const EXPIRED_FILES = 45

test('a request passes through few files, so that its story can be followed', async () => {
  const { hot, expired } = await traceWalks()
  assert.ok(hot.files.has('src/proxy/forward.ts'), 'the walk does not see the proxy')
  assert.ok(expired.files.size > hot.files.size, 'the walk does not see the refresh')
  within(HOT_FILES, [...hot.files.keys()])
  within(EXPIRED_FILES, [...expired.files.keys()])
})

function within(most: number, files: readonly string[]): void {
  const list = files.join('\n  ')
  assert.ok(files.length <= most, `${files.length} files, at most ${most} (npm run walk):\n  ${list}`)
}
