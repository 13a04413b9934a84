import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { mostOpenFiles, openFilesWarning } from '../../../src/cli/process.ts'
import { BASE, ENV } from '../../kit/config/base-config.ts'

describe('limits.connections above ulimit -n', () => {
  test('is told with what is needed, what there is, and both cures', () => {
    const warning = openFilesWarning(10_000, 1_024)
    assert.match(warning ?? '', /^is 10000, which needs 20000 open files .* ulimit -n is 1024/)
    assert.match(warning ?? '', /raise it to 20000 or more, or set limits\.connections to 512$/)
    assert.ok(openFilesWarning(513, 1_024))
    assert.ok(openFilesWarning(2, 1))
  })

  test('is not told where it is enough, or where the system does not say', () => {
    assert.equal(openFilesWarning(512, 1_024), undefined)
    assert.equal(openFilesWarning(1_000_000, undefined), undefined)
  })

  test('is told by serve at its start, of the limit that the process really has', (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'cloakroom-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const file = join(folder, 'cloakroom.yaml')
    // The admin address is of a network that no machine is in, so that the process ends by itself.
    const memory = 'type: memory'
    const text = BASE.replace('type: redis\n    url: rediss://redis:6379\n    keyPrefix: cloakroom', memory)
    writeFileSync(file, text.replace('listen: 127.0.0.1:9090', 'listen: 192.0.2.1:9090'))
    const main = fileURLToPath(new URL('../../../src/main.ts', import.meta.url))
    const serve = (limit: number) => {
      const command = `ulimit -n ${limit} && exec "$0" "$1" serve --config "$2"`
      const { stdout } = spawnSync('sh', ['-c', command, process.execPath, main, file], {
        encoding: 'utf8',
        env: { ...process.env, ...ENV },
      })
      return stdout.split('\n').filter((line) => line.includes('ulimit -n'))
    }
    const [line, ...more] = serve(1_024)
    assert.deepEqual(more, [])
    const { level, path, msg } = JSON.parse(line!) as Record<string, string>
    assert.deepEqual([level, path], ['warn', 'limits.connections'])
    assert.match(msg!, /ulimit -n is 1024/)
    assert.ok((mostOpenFiles() ?? 0) > 0)
  })
})
