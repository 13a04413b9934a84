import { systemClock } from '../../../async/clock.ts'
import { createDeadline, type Deadline, type Wait } from '../../../async/deadline.ts'
import { BffError } from '../../../errors.ts'
import type { ObserveStore } from '../../port.ts'
import type { ScriptName } from '../scripts.ts'
import { cleaned, type RedisError, saidAt, timedOut } from './errors.ts'
import type { RedisNode, RedisRequest } from './node.ts'
import { REPLICA_WAIT_MS, type Replication } from './replica-wait.ts'

/** Takes each request to the server that has its key: one connection, or those to the primaries of a cluster. */
export type RedisTransport = Pick<RedisNode, 'attempted' | 'send' | 'sendDurably' | 'close'> & {
  /** Why the server of a key is away; undefined while it is there. */
  outage(key: string | undefined): Error | undefined
  /** Told that a request took too long. */
  timedOut(): void
  /** For each primary a key that it has, made from `name`. */
  keyOfEachPrimary(name: string): readonly string[]
}

/**
 * Commands to Redis. They reject with `store_unavailable` within 600 ms, also when Redis hangs. Within that time they wait
 * for a connection that was just lost; once it has been away for a second they fail at once.
 */
export type RedisConnection = {
  /** Resolves when the first attempt to connect has succeeded or failed; never rejects. */
  readonly attempted: Promise<void>
  /** Sends one command, observed as `label`; its first argument is its key. Replies have RESP2 shapes. */
  call(label: string, command: string, ...args: (string | number)[]): Promise<unknown>
  /** Runs one script of scripts.ts. */
  run(script: ScriptName, keys: readonly string[], args: readonly (string | number)[]): Promise<unknown>
  /** The same, and waits until one replica has what it wrote, for 500 ms at most. */
  runDurably(
    script: ScriptName,
    keys: readonly string[],
    args: readonly (string | number)[],
  ): Promise<{ reply: unknown } & Replication>
  /** For each primary a key that it has, made from `name`. */
  keyOfEachPrimary(name: string): readonly string[]
  close(): Promise<void>
}

const COMMAND_TIMEOUT_MS = 500
const RETRY_AFTER_SECONDS = 2

/**
 * Commands with the same result when they run twice: they are sent once more when the connection was lost before the
 * answer came. The others hand out or count something, for one caller only.
 */
const REPEATABLE: ReadonlySet<string> = new Set([
  ...['readSession', 'slideSession', 'sessionTimeLeft', 'readTokens', 'readToken'],
  ...['readClientToken', 'ping', 'heartbeat'],
  ...['indexUser', 'indexIdpSession', 'forgetSessions', 'forgetUserSession', 'forgetIdpSession'],
  ...['readUserIndex', 'readIdpSessionIndex', 'sampleIdpSessionIndex'],
  ...['createSession', 'noteAbout', 'readAbout', 'createTokens', 'writeTokens', 'keepToken', 'forgetTokens'],
  'forgetAllTokens',
  ...['lock', 'unlock', 'writeClientToken', 'putLogin', 'firstUse', 'keepUsed', 'forgetUsed'],
  ...['lastEnding', 'nextEnding', 'noteEnding', 'readEnding'],
])

/** Makes the commands over a transport, or over one whose writes wait for a replica. */
export function createRedisConnection(
  transport: RedisTransport,
  { durable, observe }: { durable?: RedisTransport | undefined; observe?: ObserveStore | undefined },
): RedisConnection {
  const deadline = createDeadline(COMMAND_TIMEOUT_MS, timedOut)
  // A write may first wait for the replica that the write before it waits for.
  const durableDeadline = createDeadline(REPLICA_WAIT_MS + COMMAND_TIMEOUT_MS, timedOut)
  const observed = createObserved(transport, observe)
  const scripted = (
    script: ScriptName,
    keys: readonly string[],
    args: readonly (string | number)[],
  ): RedisRequest => ({
    label: script,
    key: keys[0],
    isRepeatable: REPEATABLE.has(script),
    send: (link) => link.run(script, keys, args),
  })
  return {
    attempted: Promise.all([transport.attempted, durable?.attempted]).then(() => undefined),
    call(label, command, ...args) {
      const sent: RedisRequest = {
        label,
        key: args.length === 0 ? undefined : String(args[0]),
        isRepeatable: REPEATABLE.has(label),
        send: (link) => link.call(command, args),
      }
      return observed(sent, deadline, transport.send)
    },
    run: (script, keys, args) => observed(scripted(script, keys, args), deadline, transport.send),
    async runDurably(script, keys, args) {
      if (!durable) return { reply: await this.run(script, keys, args), isReplicated: true }
      const observedDurably = createObserved(durable, observe)
      const sent = scripted(script, keys, args)
      const { reply, replication } = await observedDurably(sent, durableDeadline, durable.sendDurably)
      const { isReplicated, refused } = await replication
      return { reply, isReplicated, ...(refused ? { refused: cleaned(refused as RedisError) } : {}) }
    },
    keyOfEachPrimary: transport.keyOfEachPrimary,
    async close() {
      await Promise.all([transport.close(COMMAND_TIMEOUT_MS), durable?.close(COMMAND_TIMEOUT_MS)])
    },
  }
}

/** Bounds the time of a request, tells how it ended, and makes `store_unavailable` of what it rejects with. */
function createObserved(transport: RedisTransport, observe: ObserveStore | undefined) {
  return async function observed<T>(
    request: RedisRequest,
    deadline: Deadline,
    send: (request: RedisRequest, wait: Wait) => Promise<T>,
  ): Promise<T> {
    const { label, key } = request
    const startedAt = systemClock.monotonicNow()
    try {
      const reply = await deadline.within((wait) => send(request, wait))
      observe?.(label, secondsSince(startedAt), 'ok')
      return reply
    } catch (error) {
      const cause = cleaned(error as RedisError)
      observe?.(label, secondsSince(startedAt), 'error', cause.code)
      if (cause.code === 'ETIMEDOUT') transport.timedOut()
      throw new BffError('store_unavailable', `redis did not serve ${label}`, {
        // The cause of an outage says more than a command that took too long because of it.
        cause: saidAt(label, cause.isReply ? cause : (transport.outage(key) ?? cause)),
        // The same for all: an outage may be over in a moment, and to refuse once more costs little.
        retryAfterSeconds: RETRY_AFTER_SECONDS,
      })
    }
  }
}

const secondsSince = (startedAt: number) => (systemClock.monotonicNow() - startedAt) / 1000
