import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { type Message, parseMessage } from './http-message.ts'

/** A request as the upstream received it. */
export type SeenRequest = Message & { readonly connection: number }

/** What the upstream does instead of its usual answer; bytes as they go onto the wire. */
export type Script = {
  readonly reply?: string
  /** Whether it answers before it has read the body. */
  readonly early?: boolean
  /** What it does with the connection after that; keeps it unless told. */
  readonly after?: 'end' | 'reset'
}

/** An upstream that reads as leniently as it can and keeps every byte. */
export type RecordingUpstream = {
  readonly origin: string
  readonly authority: string
  /** Every request of every connection, in the order in which they were whole. */
  readonly requests: SeenRequest[]
  /** What it does with the request for a target, once. */
  readonly scripts: Map<string, Script>
  readonly connections: Connection[]
  /** How much each connection has received, to be given to `seen`. */
  mark(): number[]
  /** Resolves when any connection has received `text` after the mark, or at once. */
  seen(text: string, mark: readonly number[]): Promise<void>
  close(): Promise<void>
}

/** One connection, with everything that came over it. */
export type Connection = {
  readonly socket: Socket
  received: string
  /** Where what is not yet read as a whole request begins. */
  at: number
  /** After a 101 nothing is HTTP any more. */
  isTunnel: boolean
  isAnswered: boolean
  isClosed: boolean
  readonly closed: Promise<void>
}

/** Starts the upstream on a free port; it answers 200 with the request's number, method and target as JSON. */
export async function startRecordingUpstream(): Promise<RecordingUpstream> {
  const requests: SeenRequest[] = []
  const connections: Connection[] = []
  const scripts = new Map<string, Script>()
  const waiting = new Set<() => void>()

  function read(connection: Connection): void {
    for (;;) {
      if (connection.isTunnel || connection.socket.destroyed) return
      const message = parseMessage(connection.received, connection.at, 'request')
      if (!message) return
      const target = message.startLine.split(' ')[1] ?? ''
      const script = scripts.get(target)
      if (!message.isWhole && !script?.early) return
      if (message.isWhole) {
        connection.at += message.raw.length
        requests.push({ ...message, connection: connections.indexOf(connection) })
      }
      if (!connection.isAnswered) answer(connection, message, script)
      connection.isAnswered = !message.isWhole
      if (!message.isWhole) return
      scripts.delete(target)
    }
  }

  function answer(connection: Connection, message: Message, script: Script | undefined): void {
    const { socket } = connection
    const reply = script?.reply ?? (script ? '' : echo(message, requests.length))
    connection.isTunnel = reply.startsWith('HTTP/1.1 101')
    if (reply !== '') socket.write(reply, 'latin1')
    if (script?.after === 'end') socket.end()
    if (script?.after === 'reset') socket.resetAndDestroy()
  }

  const server = createServer({ noDelay: true, allowHalfOpen: false }, (socket) => {
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
    const connection: Connection = {
      ...{ socket, received: '', at: 0, isTunnel: false, isAnswered: false, isClosed: false, closed },
    }
    connections.push(connection)
    socket.on('error', () => {})
    socket.on('close', () => {
      connection.isClosed = true
    })
    socket.on('data', (chunk) => {
      connection.received += chunk.toString('latin1')
      read(connection)
      for (const check of waiting) check()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const authority = `127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    ...{ origin: `http://${authority}`, authority, requests, scripts, connections },
    mark: () => connections.map(({ received }) => received.length),
    seen: (text, mark) =>
      new Promise((resolve) => {
        function check(): void {
          if (!connections.some(({ received }, index) => received.includes(text, mark[index]))) return
          waiting.delete(check)
          resolve()
        }
        waiting.add(check)
        check()
      }),
    close: async () => {
      for (const { socket } of connections) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** The whole usual answer: whoever gets it can tell that it is its own. */
function echo(message: Message, count: number): string {
  const [method = '', target = ''] = message.startLine.split(' ')
  const body = JSON.stringify({ count, method, target, bytes: message.body.length })
  const head = `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`
  return method === 'HEAD' ? head : head + body
}
