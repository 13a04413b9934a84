import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Sends whole requests in turn, and says at the end as JSON what came of them. */
const SCRIPT = `
local requests, last = {}, 0
function init(args)
  local file = assert(io.open(args[1], 'rb'))
  local length = file:read('*l')
  while length do
    requests[#requests + 1] = file:read(tonumber(length))
    length = file:read('*l')
  end
end
function request()
  last = last % #requests + 1
  return requests[last]
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('\\n{"requests":%d,"elapsedUs":%d,"refused":%d,"broken":%d,"p50Us":%d,"p99Us":%d}\\n',
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
`

/** How hard, and what. */
export type WrkOrder = {
  readonly port: number
  /** Whole requests as they go over the wire, sent in turn. */
  readonly requests: readonly string[]
  readonly connections: number
  readonly seconds: number
  /** Core to run on; that of this process unless given. */
  readonly core?: number
  /** Answers of 400 and above are what is measured, and each must be one; none may be otherwise. */
  readonly expectRefusals?: boolean
}

/** Answered requests, and how it went. */
export type WrkResult = {
  readonly requests: number
  readonly elapsedUs: number
  readonly p50Us: number
  readonly p99Us: number
}

/** Whether wrk is on this machine. */
export function wrkAvailable(): boolean {
  return spawnSync('wrk', ['-v'], { stdio: 'ignore' }).error === undefined
}

/** `wrk 4.1.0`, as it calls itself. */
export function wrkVersion(): string {
  const { stdout } = spawnSync('wrk', ['-v'], { encoding: 'utf8' })
  return /^wrk \S+/.exec(stdout)?.[0] ?? 'wrk'
}

/** Runs wrk with one thread. Rejects when connections broke, or answers were not as expected. */
export async function runWrk(order: WrkOrder): Promise<WrkResult> {
  const folder = mkdtempSync(join(tmpdir(), 'cloakroom-wrk-'))
  try {
    const [script, requests] = [join(folder, 'load.lua'), join(folder, 'requests')]
    writeFileSync(script, SCRIPT)
    // latin1: one character is one byte.
    writeFileSync(requests, order.requests.map((text) => `${text.length}\n${text}`).join(''), 'latin1')
    const { refused, broken, ...result } = await resultOf([
      ...(order.core === undefined ? [] : ['taskset', '-c', String(order.core)]),
      'wrk',
      ...['-t', '1', '-c', String(order.connections), '-d', `${order.seconds}s`, '--timeout', '10s'],
      ...['-s', script, `http://127.0.0.1:${order.port}/`, '--', requests],
    ])
    if (broken > 0) throw new Error(`${broken} of ${result.requests} requests broke`)
    const expected = order.expectRefusals ? result.requests : 0
    if (refused !== expected) throw new Error(`${refused} of ${result.requests} answers were refusals`)
    return result
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function resultOf([program = '', ...args]: readonly string[]): Promise<
  WrkResult & { refused: number; broken: number }
> {
  const wrk = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  const killWithUs = () => wrk.kill('SIGKILL')
  process.once('exit', killWithUs)
  return new Promise((resolve, reject) => {
    let text = ''
    for (const output of [wrk.stdout, wrk.stderr]) output.on('data', (chunk) => (text += chunk))
    wrk.once('error', reject)
    wrk.once('close', (code) => {
      process.off('exit', killWithUs)
      const [json] = /^\{.*\}$/m.exec(text) ?? []
      if (code === 0 && json) resolve(JSON.parse(json))
      else reject(new Error(`wrk ended with ${code}: ${text.slice(-500)}`))
    })
  })
}
