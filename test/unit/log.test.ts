import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { describe, test } from 'node:test'

const LOG = new URL('../../src/log.ts', import.meta.url).href

/** Runs a program that has a `log`; gives what it wrote to standard output, whatever its exit code. */
function outputOf(program: string): Promise<string[]> {
  const source = `import { createLogger } from ${JSON.stringify(LOG)}; const log = createLogger(); ${program}`
  return new Promise((resolve) => {
    execFile(process.execPath, ['--input-type=module', '-e', source], (_error, stdout) => {
      resolve(stdout.split('\n').slice(0, -1))
    })
  })
}

const ENDS = {
  'ends by itself': '',
  'calls process.exit': 'process.exit(1)',
  'dies of an exception': 'throw new Error("defect")',
}

describe('the log on standard output', () => {
  for (const [end, statement] of Object.entries(ENDS)) {
    test(`has every line, in order, when the process ${end}`, async () => {
      const lines = await outputOf(
        `for (let n = 0; n < 1000; n += 1) log.info({ count: n }, 'line'); ${statement}`,
      )
      assert.deepEqual(
        lines.map((line) => JSON.parse(line).count),
        Array.from({ length: 1000 }, (_, n) => n),
      )
    })
  }

  test('has a warning, and what came before it, at once', async () => {
    const lines = await outputOf(
      `log.info({}, 'before'); log.warn({}, 'warning'); process.kill(process.pid, 'SIGKILL')`,
    )
    assert.deepEqual(
      lines.map((line) => JSON.parse(line).msg),
      ['before', 'warning'],
    )
  })

  test('has a lone line soon, while the process goes on', async () => {
    const lines = await outputOf(
      `log.info({}, 'alone'); setTimeout(() => process.kill(process.pid, 'SIGKILL'), 1_000)`,
    )
    assert.deepEqual(
      lines.map((line) => JSON.parse(line).msg),
      ['alone'],
    )
  })

  test('has no field that is not on the list', async () => {
    const [line] = await outputOf(`log.info({ count: 1, accessToken: 'x' }, 'line')`)
    assert.deepEqual(Object.keys(JSON.parse(line!)), ['level', 'time', 'count', 'msg'])
  })
})
