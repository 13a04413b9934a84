import assert from 'node:assert/strict'
import { type ChildProcess, execFile, execFileSync, type StdioOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, type TestContext, test } from 'node:test'
import { pino } from 'pino'
import { createLogger, type LogFields } from '../../src/log.ts'

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

describe('a line of the level info', () => {
  /** The lines of our logger and of pino, as it was set up for all levels, at the same time of day. */
  function bothLines(
    t: TestContext,
    fields: LogFields,
    message: string,
    ms = 78,
  ): [ours: string, pinos: string] {
    t.mock.timers.enable({ apis: ['Date'], now: Date.UTC(2026, 1, 3, 4, 5, 6, ms) })
    const lines: string[] = []
    const destination = { write: (line: string) => void lines.push(line) }
    createLogger({ destination }).info(fields, message)
    const settings = {
      ...{
        base: undefined,
        timestamp: pino.stdTimeFunctions.isoTime,
        serializers: { err: (err: unknown) => err },
      },
      formatters: { level: (label: string) => ({ level: label }) },
    }
    pino(settings, destination).info(fields, message)
    t.mock.timers.reset()
    return [lines[0]!, lines[1]!]
  }

  /** Numbers that look random and are the same at each run (Lehmer). */
  function createRandom() {
    let state = 20_261_201
    return (below: number) => {
      state = (state * 48_271) % 2_147_483_647
      return state % below
    }
  }

  const PIECES = [
    'a',
    '"',
    '\\',
    '/',
    '\n',
    '\u0000',
    '\u001f',
    '\u007f',
    '\u0085',
    '\u2028',
    'é',
    '€',
    '😀',
    '%s',
    '</b>',
  ]
  const NUMBERS = [0, -0, 1.5, 1e21, 1e-7, -3, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]

  test('is that of pino, byte for byte, whatever its fields hold', (t) => {
    const random = createRandom()
    const text = () => Array.from({ length: random(60) }, () => PIECES[random(PIECES.length)]).join('')
    for (let n = 0; n < 2_000; n += 1) {
      const fields: LogFields = {
        request_id: text(),
        traceparent: random(2) === 0 ? undefined : text(),
        path: text(),
        durationMs: NUMBERS[random(NUMBERS.length)]!,
        ...(random(3) === 0 ? { reason: text() } : {}),
        ...(random(3) === 0 ? { err: { name: text(), message: text() } } : {}),
        ...(random(3) === 0 ? { problems: [{ line: n, path: text(), message: text() }] } : {}),
      }
      const [ours, pinos] = bothLines(t, fields, text(), random(4) === 0 ? random(12) : random(3_000))
      assert.equal(ours, pinos)
    }
  })

  test('is that of pino without any field, and is one line of JSON with half a character in it', (t) => {
    const [ours, pinos] = bothLines(t, {}, 'a message')
    assert.equal(ours, pinos)
    const [withHalf] = bothLines(t, { path: '/\ud800' }, 'a message')
    assert.equal(JSON.parse(withHalf).path, '/\ud800')
  })

  test('is not written at a higher level', () => {
    const lines: string[] = []
    const log = createLogger({ level: 'warn', destination: { write: (line) => void lines.push(line) } })
    log.info({}, 'no')
    log.warn({}, 'yes')
    log.audit?.('sign_in', {})
    assert.deepEqual(
      lines.map((line) => JSON.parse(line).msg),
      ['yes', 'audit'],
    )
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
