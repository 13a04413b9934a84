import { connect } from 'node:net'
import { type Message, parseMessage, valuesOf } from './http-message.ts'

/** An answer as it came over the wire. */
export type Answer = Message & {
  readonly status: number
  /** The code of the contract that a problem of ours carries. */
  readonly code: string | undefined
}

/** Everything that came back over one connection. */
export type Received = {
  /** Final answers in order; the last may lack bytes. */
  readonly answers: readonly Answer[]
  /** Statuses of the interim answers. */
  readonly interim: readonly number[]
  /** What followed a 101. */
  readonly tunnel: string
  /** What is no part of an answer. */
  readonly rest: string
}

/** A client that says exactly the bytes it is told. */
export type RawClient = {
  write(bytes: string): void
  text(): string
  received(): Received
  /** Resolves when it is so, or when the connection is closed. */
  until(is: () => boolean): Promise<void>
  isClosed(): boolean
  /** The connection's last word was a reset. */
  wasReset(): boolean
  readonly closed: Promise<void>
  leave(how: 'end' | 'reset'): void
}

/** How long any wait may take before it fails. Milliseconds; nothing here takes this long when all is well. */
export const PATIENCE_MS = 20_000

/** Opens a connection; `methods` are those of the requests that will be sent, to know which answers have no body. */
export function openRawClient(port: number, methods: () => readonly string[]): RawClient {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true })
  let text = ''
  let isClosed = false
  let wasReset = false
  const waiting = new Set<() => void>()
  const wake = () => {
    for (const check of [...waiting]) check()
  }
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1')
    wake()
  })
  socket.on('error', (error: Error & { code?: string }) => {
    wasReset = error.code === 'ECONNRESET' || error.code === 'EPIPE'
  })
  socket.on('end', () => socket.end())
  const closed = new Promise<void>((resolve) => {
    socket.on('close', () => {
      isClosed = true
      wake()
      resolve()
    })
  })
  function until(is: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      function check(): void {
        if (!isClosed && !is()) return
        waiting.delete(check)
        resolve()
      }
      waiting.add(check)
      check()
    })
  }
  return {
    ...{ until, closed, text: () => text, isClosed: () => isClosed, wasReset: () => wasReset },
    write: (bytes) => socket.write(bytes, 'latin1'),
    received: () => parseAnswers(text, methods(), isClosed),
    leave: (how) => void (how === 'end' ? socket.end() : socket.resetAndDestroy()),
  }
}

/** Rejects, and says what it waited for, when `promise` takes too long. */
export async function inTime<Value>(promise: Promise<Value>, what: () => string): Promise<Value> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what()}`)), PATIENCE_MS)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** Splits what came back into answers. */
export function parseAnswers(text: string, methods: readonly string[], isClosed: boolean): Received {
  const answers: Answer[] = []
  const interim: number[] = []
  let at = 0
  while (at < text.length) {
    const method = methods[answers.length]
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(text.slice(at, at + 12))?.[1])
    const isBodiless = method === 'HEAD' || status < 200 || status === 204 || status === 304
    const message = parseMessage(text, at, isBodiless ? 'response without body' : 'response')
    if (!message || Number.isNaN(status)) break
    at += message.raw.length
    if (status === 101) {
      answers.push({ ...message, status, code: undefined })
      return { answers, interim, tunnel: text.slice(at), rest: '' }
    }
    if (status < 200) {
      interim.push(status)
      continue
    }
    const isWhole = message.framing === 'close' ? isClosed : message.isWhole
    answers.push({ ...message, isWhole, status, code: valuesOf(message, 'cloakroom-error')[0] })
    if (!isWhole) break
  }
  return { answers, interim, tunnel: '', rest: text.slice(at) }
}
