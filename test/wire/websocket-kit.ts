import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { startCloakroom } from '../kit/cloakroom.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'

type Scope = { after(cleanUp: () => unknown): void }

const PYTHON = '/usr/bin/python3'
const PEER = fileURLToPath(new URL('websocket-peer.py', import.meta.url))

/** For a test's `skip` option: why the foreign peer cannot run here, or false. */
export function skipWithoutPython(): string | false {
  const isThere = spawnSync(PYTHON, ['-c', 'import websockets'], { stdio: 'ignore' }).status === 0
  return isThere ? false : "NOT RUN: Debian's python3-websockets is not installed on this machine"
}

/** Starts the foreign echo; gives its origin. */
export async function startPythonEcho(t: Scope): Promise<string> {
  const child: ChildProcess = spawn(PYTHON, [PEER, 'serve'], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  const [port] = await once(createInterface({ input: child.stdout! }), 'line')
  return `http://127.0.0.1:${port}`
}

/** What the foreign client got back. */
export type Visit = { readonly same: number; readonly digest: string; readonly code: number }

/** Sends the foreign client there. */
export async function pythonVisit(url: string, origin: string, count: number, cookie = ''): Promise<Visit> {
  const args = [PEER, 'visit', url, origin, String(count)]
  const { stdout } = await promisify(execFile)(PYTHON, args, { env: { ...process.env, COOKIE: cookie } })
  return JSON.parse(stdout)
}

/** A Cloakroom in this process in front of one WebSocket upstream, and the cookie of a signed-in user. */
export async function startInFrontOf(t: Scope, upstream: string) {
  const provider = await startRotatingProvider()
  t.after(() => provider.close())
  const cloakroom = await startCloakroom({
    provider: provider.settings,
    resources: { chat: { resource: 'https://chat.example.com' } },
    routes: [{ path: '/chat', upstream, resource: 'chat', websocket: true }],
  })
  t.after(() => cloakroom.close())
  const browser = cloakroom.browser()
  await browser.signIn()
  return {
    origin: cloakroom.publicUrl,
    url: `${cloakroom.publicUrl.replace('http', 'ws')}/chat`,
    cookie: browser.cookieHeader(),
  }
}

/** Opens a WebSocket with raw bytes, sends `frames` right behind the handshake, and hashes all that comes after the 101. */
export async function rawExchange(
  port: number,
  fields: Readonly<Record<string, string>>,
  frames: readonly Buffer[],
): Promise<{ bytes: number; sha256: string }> {
  const socket = connect(port, '127.0.0.1')
  const lines = Object.entries({
    Host: `127.0.0.1:${port}`,
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
    ...fields,
  }).map(([name, value]) => `${name}: ${value}\r\n`)
  // One piece, so that the first frames come in the segment of the handshake.
  socket.write(Buffer.concat([Buffer.from(`GET /chat HTTP/1.1\r\n${lines.join('')}\r\n`), ...frames]))
  const hash = createHash('sha256')
  let bytes = 0
  let head: Buffer | undefined = Buffer.alloc(0)
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    let body = chunk
    if (head) {
      head = Buffer.concat([head, chunk])
      const end = head.indexOf('\r\n\r\n')
      if (end === -1) continue
      if (!head.toString('latin1', 0, end).startsWith('HTTP/1.1 101 '))
        throw new Error(head.toString('latin1'))
      body = head.subarray(end + 4)
      head = undefined
    }
    bytes += body.length
    hash.update(body)
  }
  return { bytes, sha256: hash.digest('hex') }
}
