import { connect } from 'node:net'

/** What came back on one connection. */
export type RawAnswer = {
  /** All of it, one character a byte. */
  readonly text: string
  /** Statuses of the responses in it, in order. */
  readonly statuses: number[]
}

/** How long a connection may stay open; longer is a hang. */
const HANGS_MS = 30_000

/** What the client does beside waiting for the other side to close. */
export type Patience = {
  /** Ends its side after the last byte, as a client does that goes away. */
  readonly leaves?: boolean
  /** Ends its side once nothing has come for so long, for servers that wait for more. */
  readonly quietMs?: number
}

/**
 * Sends bytes (one character each) on a connection of their own and reads until the other side closes it. Rejects when
 * it is still open after 30 s.
 */
export function exchangeBytes(
  port: number,
  bytes: string,
  { leaves = false, quietMs }: Patience = {},
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    let text = ''
    const tooLong = setTimeout(() => {
      socket.destroy()
      reject(new Error(`the connection was still open after ${HANGS_MS} ms; so far: ${text.slice(0, 200)}`))
    }, HANGS_MS)
    const quiet = quietMs === undefined ? undefined : setTimeout(() => socket.end(), quietMs)
    socket.on('data', (chunk) => {
      quiet?.refresh()
      text += chunk.toString('latin1')
    })
    // A server that refuses may reset the connection while we still write.
    socket.on('error', () => undefined)
    socket.once('close', () => {
      clearTimeout(tooLong)
      clearTimeout(quiet)
      const statuses = [...text.matchAll(/HTTP\/1\.[01] (\d{3}) /g)].map(([, status]) => Number(status))
      resolve({ text, statuses })
    })
    socket.write(bytes, 'latin1')
    if (leaves) socket.end()
  })
}
