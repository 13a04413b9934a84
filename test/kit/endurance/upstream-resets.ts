import assert from 'node:assert/strict'
import { Agent, request } from 'node:http'
import type { Socket } from 'node:net'
import type { SeededRandom } from '../../chaos/seeded-random.ts'
import type { Measured } from './kit.ts'
import { createTally, inParallel } from './raw-http.ts'

const AT_ONCE = 48
const BODY = 262_144

const UPSTREAM_PHASES = [
  'accept',
  'head',
  'half-head',
  'length',
  'chunked',
  'events',
  'upload',
  'idle',
] as const

/** Upstreams that reset the connection in each phase, in turn; gives what the clients saw. */
export async function upstreamResets(
  measured: Measured,
  random: SeededRandom,
  times: number,
): Promise<string> {
  const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE })
  const tally = createTally()
  await inParallel(times, AT_ONCE, async (n) => {
    const phase = UPSTREAM_PHASES[n % UPSTREAM_PHASES.length]!
    const at = Math.floor(random.between(0, 100_000))
    const path = phase === 'accept' ? '/closed' : `/mortal/${phase}?at=${at}`
    const outcome = await outcomeOf(measured, path, agent, phase === 'upload' ? BODY : 0)
    assert.ok(EXPECTED[phase].includes(outcome), `${phase}: ${outcome}`)
    tally.add(`${phase} ${outcome}`)
  })
  agent.destroy()
  return tally.toString()
}

const EXPECTED: Readonly<Record<(typeof UPSTREAM_PHASES)[number], readonly string[]>> = {
  accept: ['502 whole'],
  head: ['502 whole'],
  'half-head': ['502 whole'],
  // A reset may overtake the head in the kernel; but never is half a body taken for a whole one.
  length: ['200 cut', '502 whole'],
  chunked: ['200 cut', '502 whole'],
  events: ['200 cut', '502 whole'],
  // The answer may come while the rest of the body is still on its way, and end the connection under it.
  upload: ['502 whole', '502 cut', 'cut'],
  // The second connection that is tried may be dead as well, and a request is tried twice at most.
  idle: ['200 whole', '502 whole'],
}

/** Status of the answer, and whether it came whole. */
function outcomeOf(
  { port, fields }: Measured,
  path: string,
  agent: Agent,
  bodyBytes: number,
): Promise<string> {
  const method = bodyBytes > 0 ? 'POST' : 'GET'
  return new Promise((resolve) => {
    const req = request({ method, port, host: '127.0.0.1', path, headers: fields, agent }, (res) => {
      const tell = () => resolve(`${res.statusCode} ${res.complete ? 'whole' : 'cut'}`)
      res.on('error', tell).on('close', tell).resume()
    })
    req.on('error', () => resolve('cut'))
    req.end(bodyBytes > 0 ? Buffer.alloc(bodyBytes) : undefined)
  })
}

/** Resets the connection in the phase that the request's path names. */
export function dieAsAsked(socket: Socket): void {
  let text = ''
  let received = 0
  socket.on('data', (chunk) => {
    received += chunk.length
    if (!text.includes('\r\n\r\n')) text += chunk.toString('latin1')
    const [, phase, bytes] = /\/mortal\/([a-z-]+)\?at=(\d+) /.exec(text) ?? []
    if (!phase || !text.includes('\r\n\r\n')) return
    const at = Number(bytes)
    const die = () => socket.resetAndDestroy()
    if (phase === 'upload') {
      if (received > at) die()
      return
    }
    text = ''
    if (phase === 'idle') {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      setTimeout(die, at % 5).unref()
    } else if (phase === 'head') die()
    else socket.write(partOf(phase, at), () => setTimeout(die, at % 7).unref())
  })
}

function partOf(phase: string, at: number): string {
  if (phase === 'half-head') return 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Wh'
  if (phase === 'length') return `HTTP/1.1 200 OK\r\nContent-Length: ${at + 10}\r\n\r\n${'.'.repeat(at)}`
  const type = phase === 'events' ? 'text/event-stream' : 'text/plain'
  const chunk = `${(at + 10).toString(16)}\r\n${'.'.repeat(at + 10)}\r\n`
  return `HTTP/1.1 200 OK\r\nContent-Type: ${type}\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`
}
