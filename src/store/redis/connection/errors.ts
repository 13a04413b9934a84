import { SCRIPTS, type ScriptName } from '../scripts.ts'

/** An error of ioredis: what Redis answered, or what became of the connection. */
export type RedisError = Error & {
  readonly code?: string
  readonly command?: { readonly args?: readonly unknown[] }
}

/** Another node of a Redis Cluster that a command must go to. */
export type Redirection = { readonly slot: number; readonly host: string; readonly port: number }

/** An error that holds nothing of what was sent. */
export type CleanError = Error & {
  /** Code of Redis (`READONLY`) or of the connection (`ECONNREFUSED`). */
  readonly code: string | undefined
  /** Whether Redis answered it. Otherwise the answer was lost, or nothing was sent. */
  readonly isReply: boolean
  /** The command was not sent, so that it has certainly done nothing. */
  readonly isUnsent: boolean
  /** Where an answer `MOVED` or `ASK` leads. The host is empty where it is that of the answering node. */
  readonly redirection: Redirection | undefined
}

/** Shorter texts occur in ordinary words. */
const MIN_SECRET_LENGTH = 3

/**
 * Copies the error without what was sent: ioredis attaches the arguments of a command to its errors, and Redis repeats
 * them in the text of some, also of an AUTH or HELLO that it does not know.
 */
export function cleaned(error: RedisError, password?: string | null): CleanError {
  const { name, message, code, command } = error
  const sent = [password, ...(command?.args ?? [])]
    .map(String)
    .filter((text) => text.length >= MIN_SECRET_LENGTH)
  const text = sent.reduce((whole, secret) => whole.replaceAll(secret, '…'), message)
  const clean = new Error(text.replace(/,? with args beginning with.*/s, '').trimEnd())
  clean.name = name
  const isReply = name === 'ReplyError'
  return Object.assign(clean, {
    code: code ?? (isReply ? /^[A-Z]+/.exec(message)?.[0] : 'ENOTCONN'),
    isReply,
    isUnsent: (error as Partial<CleanError>).isUnsent ?? false,
    redirection: isReply ? redirectionOf(message) : undefined,
  })
}

/** Reads `MOVED 3999 10.0.0.1:6381` and its like; an IPv6 address has no brackets there. */
function redirectionOf(message: string): Redirection | undefined {
  const [, slot, host, port] = /^(?:MOVED|ASK) (\d+) (.*):(\d+)$/.exec(message) ?? []
  return slot === undefined ? undefined : { slot: Number(slot), host: host!, port: Number(port) }
}

/** Redis names only the line of the script in which a command failed, also where an access rule forbids it: adds that command's name. */
export function saidAt(label: string, error: Error): Error {
  const [, line] = /@user_script:\s*(\d+)/.exec(error.message) ?? []
  if (line === undefined || !(label in SCRIPTS)) return error
  const text = SCRIPTS[label as ScriptName].lua.split('\n')[Number(line) - 1] ?? ''
  const commands = [...text.matchAll(/redis\.call\('(\w+)'/g)].map(([, command]) => command)
  error.message = `${error.message.replace(/\.$/, '')} (${commands.join(', ')})`
  return error
}

/** What a command rejects with that took too long. */
export const timedOut = () => Object.assign(new Error('Command timed out'), { code: 'ETIMEDOUT' })

/** What a command rejects with for want of a connection. */
export const notConnected = (why = 'not connected') => Object.assign(new Error(why), { code: 'ENOTCONN' })
