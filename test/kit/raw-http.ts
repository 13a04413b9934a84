import { connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/** What came back on one connection, one character a byte. */
export type RawTalk = {
  readonly text: string
  /** Statuses of all answers in it, in order. */
  readonly statuses: readonly number[]
  /** The server ended the connection; otherwise the client gave up. */
  readonly isEnded: boolean
  /** From the connection's begin to its end. Milliseconds. */
  readonly tookMs: number
}

/** How bytes are sent and how long an answer is waited for. Milliseconds. */
export type RawPatience = { readonly pauseMs?: number; readonly forMs?: number }

/** Sends the pieces one after the other on a connection of their own and reads until the server ends it. */
export async function talkRaw(
  port: number,
  pieces: string | readonly string[],
  { pauseMs = 20, forMs = 5_000 }: RawPatience = {},
): Promise<RawTalk> {
  const startedAt = performance.now()
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  let text = ''
  let isEnded = true
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1')
  })
  // A server that refuses may reset the connection while we still write.
  socket.on('error', () => undefined)
  const closed = new Promise<number>((resolve) => socket.once('close', () => resolve(performance.now())))
  const giveUp = setTimeout(() => {
    isEnded = false
    socket.destroy()
  }, forMs)
  for (const [n, piece] of [pieces].flat().entries()) {
    if (n > 0) await delay(pauseMs)
    if (socket.destroyed) break
    socket.write(piece, 'latin1')
  }
  const closedAt = await closed
  clearTimeout(giveUp)
  const statuses = [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status))
  return { text, statuses, isEnded, tookMs: closedAt - startedAt }
}

/** The members of the problem in the last answer of a talk. */
export function problemIn({ text }: RawTalk): Record<string, unknown> {
  const at = text.lastIndexOf('\r\n\r\n')
  return JSON.parse(text.slice(at + 4)) as Record<string, unknown>
}
