import assert from 'node:assert/strict'
import { type ChildProcess, execFile, execFileSync, type StdioOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'

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

type Line = { readonly msg: string; readonly count: number }

/** A program with a `log` that does as it is told: to write lines, and to say how many were dropped so far. */
function startLogging(t: TestContext, stdout: StdioOptions | number) {
  const source = `
    import { createLogger, droppedLogLines } from ${JSON.stringify(LOG)}
    const log = createLogger()
    let count = 0
    process.on('message', ({ lines, exit }) => {
      if (exit) process.disconnect()
      for (let n = 0; n < lines; n += 1) log.info({ count: count++ }, 'line')
      setTimeout(() => process.connected && process.send(droppedLogLines()), 150)
    })`
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
    stdio: ['ignore', stdout, 'inherit', 'ipc'] as StdioOptions,
  })
  t.after(() => child.kill('SIGKILL'))
  async function write(lines: number): Promise<number> {
    child.send({ lines })
    const [dropped] = await once(child, 'message')
    return dropped as number
  }
  return { child, write }
}

/** Has it end by itself; gives its exit code and for how long it took, in ms. */
async function endOf(child: ChildProcess): Promise<[code: number, tookMs: number]> {
  const begun = performance.now()
  child.send({ lines: 3, exit: true })
  const [code] = await once(child, 'exit')
  return [code as number, performance.now() - begun]
}

function openPipe(t: TestContext): number {
  const folder = mkdtempSync(join(tmpdir(), 'cloakroom-'))
  t.after(() => rmSync(folder, { recursive: true }))
  execFileSync('mkfifo', [join(folder, 'pipe')])
  return openSync(join(folder, 'pipe'), constants.O_RDWR)
}

describe('standard output that takes nothing', { concurrency: true }, () => {
  for (const kind of ['pipe', 'socket'] as const)
    test(`a ${kind} that nobody reads stops nothing, keeps what came first, and tells what it lost when it is read`, async (t) => {
      const fd = kind === 'pipe' ? openPipe(t) : undefined
      const { child, write } = startLogging(t, fd ?? 'pipe')
      const reader = fd === undefined ? (child.stdout as Socket) : new Socket({ fd, readable: true })
      t.after(() => reader.destroy())
      let text = ''
      const dropped = await write(30_000)
      assert.ok(dropped > 1_000 && dropped < 20_000, String(dropped))
      reader.setEncoding('utf8').on('data', (chunk) => (text += chunk))
      while (!text.includes('log lines dropped')) await once(reader, 'data')
      assert.equal(await write(5), dropped)
      assert.equal((await endOf(child))[0], 0)
      while (!text.includes('"count":30007')) await once(reader, 'data')
      const lines = text.split('\n').slice(0, -1)
      const parsed = lines.map((line) => JSON.parse(line) as Line)
      const counts = parsed.filter(({ msg }) => msg === 'line').map(({ count }) => count)
      const later = Array.from({ length: 8 }, (_, n) => 30_000 + n)
      assert.deepEqual(counts, [...Array(30_000 - dropped).keys(), ...later])
      assert.deepEqual(
        parsed.filter(({ msg }) => msg !== 'line').map(({ count }) => count),
        [dropped],
      )
    })

  test('a pipe that nobody reads holds an exit up for a second or so', async (t) => {
    const fd = openPipe(t)
    const { child, write } = startLogging(t, fd)
    await write(30_000)
    const [code, tookMs] = await endOf(child)
    assert.equal(code, 0)
    assert.ok(tookMs < 5_000, `${tookMs} ms`)
    closeSync(fd)
  })

  test('a full device, or a pipe without a reader, ends nothing, and every line is counted', async (t) => {
    const full = startLogging(t, openSync('/dev/full', 'w'))
    assert.equal(await full.write(1_000), 1_000)
    assert.equal(await full.write(10), 1_010)
    assert.deepEqual((await endOf(full.child))[0], 0)
    const left = startLogging(t, 'pipe')
    left.child.stdout!.destroy()
    await once(left.child.stdout!, 'close')
    assert.equal(await left.write(1_000), 1_000)
    assert.deepEqual((await endOf(left.child))[0], 0)
  })

  test('a file gets every line in order', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'cloakroom-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const { child, write } = startLogging(t, openSync(join(folder, 'log'), 'w'))
    assert.equal(await write(3_000), 0)
    assert.equal((await endOf(child))[0], 0)
    const lines = readFileSync(join(folder, 'log'), 'utf8').split('\n').slice(0, -1)
    assert.deepEqual(
      lines.map((line) => (JSON.parse(line) as Line).count),
      [...Array(3_003).keys()],
    )
  })
})
