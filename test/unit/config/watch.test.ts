import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { createFileLook, readerThatNotes, type SeenFiles, watchFiles } from '../../../src/config/watch.ts'

async function setUp(t: TestContext, files: Record<string, string>) {
  const folder = await mkdtemp(join(tmpdir(), 'watch-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  const path = (name: string) => join(folder, name)
  for (const [name, text] of Object.entries(files)) await writeFile(path(name), text)
  let seen: SeenFiles = new Map()
  /** Reads the files as a configuration is read, the missing ones too. */
  const read = (...names: string[]) => {
    seen = new Map()
    const readFile = readerThatNotes(seen)
    return names.map((name) => {
      try {
        return readFile(path(name))
      } catch {
        return undefined
      }
    })
  }
  const changes: (() => void)[] = []
  let changed = 0
  const onChange = async () => {
    changed += 1
    read(...[...seen.keys()].map((file) => basename(file)))
    changes.shift()?.()
  }
  const watched = { seen: () => seen, onChange }
  const watch = () => t.after(watchFiles({ ...watched, intervalMs: 5 }))
  const nextChange = () => new Promise<void>((resolve) => changes.push(resolve))
  return { folder, path, read, watch, look: createFileLook(watched), nextChange, changed: () => changed }
}

test('a file that holds something else is noticed once', async (t) => {
  const { path, read, watch, nextChange, changed } = await setUp(t, { a: 'one', b: 'two' })
  read('a', 'b')
  watch()
  const first = nextChange()
  await writeFile(path('b'), 'three')
  await first
  const second = nextChange()
  await writeFile(path('a'), 'four')
  await second
  assert.equal(changed(), 2)
})

test('a change between the reading and the first look is noticed', async (t) => {
  const { path, read, watch, nextChange } = await setUp(t, { a: 'one' })
  read('a')
  await writeFile(path('a'), 'two')
  const change = nextChange()
  watch()
  await change
})

test('a file that is only touched is no change', async (t) => {
  const { path, read, watch, nextChange, changed } = await setUp(t, { a: 'one', b: 'x' })
  read('a', 'b')
  watch()
  await utimes(path('a'), 1, 1)
  await writeFile(path('a'), 'one')
  const change = nextChange()
  await writeFile(path('b'), 'y')
  await change
  assert.equal(changed(), 1)
})

test('a file that was missing and appears is noticed', async (t) => {
  const { path, read, watch, nextChange } = await setUp(t, { a: 'one' })
  assert.deepEqual(read('a', 'secret'), ['one', undefined])
  watch()
  const change = nextChange()
  await writeFile(path('secret'), 's')
  await change
})

test('a mounted ConfigMap changes by its ..data link, and nothing else about the path does', async (t) => {
  const { folder, path, read, watch, nextChange } = await setUp(t, {})
  for (const [version, text] of [
    ['v1', 'one'],
    ['v2', 'two'],
  ] as const) {
    await mkdir(path(version))
    await writeFile(join(folder, version, 'cloakroom.yaml'), text)
  }
  await symlink('v1', path('..data'))
  await symlink(join('..data', 'cloakroom.yaml'), path('cloakroom.yaml'))
  assert.deepEqual(read('cloakroom.yaml'), ['one'])
  watch()
  const change = nextChange()
  await symlink('v2', path('..data_tmp'))
  await rename(path('..data_tmp'), path('..data'))
  await change
  assert.deepEqual(read('cloakroom.yaml'), ['two'])
})

test('a file that is being written is left alone until it keeps still', async (t) => {
  const { path, read, look, changed } = await setUp(t, { a: 'start' })
  read('a')
  await look()
  for (const text of ['half', 'half and more', 'all of it']) {
    await writeFile(path('a'), text)
    await look()
    assert.equal(changed(), 0)
  }
  await look()
  assert.equal(changed(), 1)
  assert.deepEqual(read('a'), ['all of it'])
})
