import assert from 'node:assert/strict'
import { channel } from 'node:diagnostics_channel'
import { createServer as createHttpsServer } from 'node:https'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { setDefaultCACertificates } from 'node:tls'
import { createSendWatch } from '../../../../src/oidc/token-endpoint/provider-fetch.ts'
import { freePort } from '../../../kit/ports.ts'
import { selfSigned } from '../../../kit/self-signed.ts'

const CHANNELS = ['undici:request:create', 'undici:client:sendHeaders']

for (const [what, answer, wasSent] of [
  ['is answered', (socket: Socket) => void socket.end('HTTP/1.1 204 No Content\r\n\r\n'), true],
  ['is reset in its middle', (socket: Socket) => void socket.resetAndDestroy(), true],
  ['is never answered', () => undefined, true],
] as const)
  test(`a request that ${what} was sent`, async (t) => {
    const origin = await listening(
      t,
      createServer((socket) => {
        socket.on('error', () => undefined)
        socket.once('data', () => answer(socket))
      }),
    )
    assert.equal(await wasSentTo(origin), wasSent)
  })

test('a request that finds nobody was not sent', async () => {
  assert.equal(await wasSentTo(`http://127.0.0.1:${await freePort()}`), false)
})

test('where nothing is known, the request counts as sent', async () => {
  let wasSent = false
  const watch = createSendWatch()
  const failing = watch(
    () => Promise.reject(new Error('by other means')),
    () => {
      wasSent = true
    },
  )
  await assert.rejects(failing, /by other means/)
  assert.equal(wasSent, true)
})

test('of two at the same time each is told of its own, and afterwards nobody listens', async (t) => {
  const origin = await listening(t, answering())
  const watch = createSendWatch()
  const unused = `http://127.0.0.1:${await freePort()}`
  const seen = await Promise.all([origin, unused, origin, unused].map((url) => wasSentTo(url, watch)))
  assert.deepEqual(seen, [true, false, true, false])
  assert.deepEqual(
    CHANNELS.map((name) => channel(name).hasSubscribers),
    [false, false],
  )
})

test('a request that was given up in the TLS handshake was not sent, and is not sent later', async (t) => {
  const { cert, key } = selfSigned(['localhost'])
  setDefaultCACertificates([cert])
  const asked: (string | undefined)[] = []
  const secure = createHttpsServer({ cert, key }, (req, res) => {
    asked.push(req.url)
    res.writeHead(204).end()
  })
  let held: Socket[] | undefined = []
  const origin = await listening(
    t,
    createServer({ pauseOnConnect: true }, (socket) => {
      if (held) held.push(socket)
      else secure.emit('connection', socket.resume())
    }),
  )
  const url = origin.replace('http://127.0.0.1', 'https://localhost')
  assert.equal(await wasSentTo(`${url}/first`), false)
  for (const socket of held) secure.emit('connection', socket.resume())
  held = undefined
  assert.equal(await wasSentTo(`${url}/second`), true)
  assert.deepEqual(asked, ['/second'])
})

function answering() {
  return createServer((socket) => {
    socket.on('error', () => undefined)
    socket.once('data', () => socket.end('HTTP/1.1 204 No Content\r\n\r\n'))
  })
}

async function wasSentTo(url: string, watch = createSendWatch()): Promise<boolean> {
  let wasSent = false
  const body = new URLSearchParams({ refresh_token: 'rt' })
  const signal = AbortSignal.timeout(1_500)
  await watch(
    () => fetch(url, { method: 'POST', body, signal }),
    () => {
      wasSent = true
    },
  ).catch(() => undefined)
  return wasSent
}

async function listening(t: TestContext, server: Server): Promise<string> {
  const open = new Set<Socket>()
  server.on('connection', (socket) => open.add(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.close()
    for (const socket of open) socket.destroy()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
