import { systemClock } from '../../async/clock.ts'
import { within } from '../../async/deadline.ts'
import { BffError, describeError } from '../../errors.ts'

/** How one check ended. */
export type Level = 'ok' | 'warn' | 'fail'

/** What one check found, in our own words: never a token, secret, cookie or claim. */
export type Found = {
  readonly level: Level
  readonly message: string
  /** What to do about it; absent where nothing is to be done. */
  readonly cure?: string | undefined
}

/** One line of the report. */
export type Finding = Found & { readonly group: string; readonly check: string }

/** What one check gives; undefined: there is nothing to be said. */
export type Findings = Found | readonly Found[] | undefined

/** The checks about one thing, such as Redis. */
export type Group = {
  readonly name: string
  /** Runs one check and keeps what it found, in the order in which checks begin. Never rejects. */
  check(name: string, run: () => Findings | Promise<Findings>, options?: CheckOptions): Promise<void>
  /** What was found so far. A check that still runs counts as failed, and what it finds later is dropped. */
  close(): Finding[]
}

export type CheckOptions = {
  /** How long it may take, in ms; 10 s unless given. */
  readonly ms?: number
  /** What to do when it takes longer. */
  readonly lateCure?: string
}

const CHECK_MS = 10_000

export const ok = (message: string): Found => ({ level: 'ok', message })
export const warn = (message: string, cure?: string): Found => ({ level: 'warn', message, cure })
export const fail = (message: string, cure?: string): Found => ({ level: 'fail', message, cure })

/** Makes a group without findings. */
export function createGroup(name: string): Group {
  const slots: { check: string; found?: readonly Found[] }[] = []
  let isClosed = false
  return {
    name,
    async check(check, run, { ms = CHECK_MS, lateCure } = {}) {
      const slot: (typeof slots)[number] = { check }
      slots.push(slot)
      const late = () => fail(`no answer within ${ms / 1000} s`, lateCure)
      const work = Promise.resolve().then(run).catch(failure)
      const found = await within<Findings, Findings>(work, ms, { late, clock: systemClock })
      if (!isClosed) slot.found = [found ?? []].flat() as readonly Found[]
    },
    close() {
      isClosed = true
      return slots.flatMap(({ check, found = [fail('not finished: all checks together took too long')] }) =>
        found.map((one) => ({ group: name, check, ...one })),
      )
    },
  }
}

/** A check that failed for a reason of its own. */
function failure(error: unknown): Found {
  const { message, cure } = causeOf(error)
  return fail(message, cure)
}

/** What is known of these codes of Node.js, beside its own words. */
const CURES: Readonly<Record<string, string>> = {
  ENOTFOUND: 'correct the host name, or the DNS of this machine',
  EAI_AGAIN: 'the DNS of this machine does not answer: in Kubernetes look at the network policy for port 53',
  ECONNREFUSED: 'nothing listens there: correct host and port, or start it',
  ECONNRESET: 'the other end closed the connection: is TLS expected there, or a client certificate?',
  ETIMEDOUT: 'no answer: look at firewalls, network policies and proxies on the way',
  UND_ERR_CONNECT_TIMEOUT: 'no answer: look at firewalls, network policies and proxies on the way',
  EHOSTUNREACH: 'there is no route to that address from this machine',
  ENETUNREACH: 'there is no route to that address from this machine',
  CERT_HAS_EXPIRED: 'renew the certificate of the other end',
  CERT_NOT_YET_VALID: 'correct the clock of this machine, or the certificate of the other end',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'trust its certificate authority: tls.ca, a PEM file',
  SELF_SIGNED_CERT_IN_CHAIN: 'trust its certificate authority: tls.ca, a PEM file',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    'the other end must send its whole chain, or trust its certificate authority: tls.ca, a PEM file',
  UNABLE_TO_GET_ISSUER_CERT: 'trust its certificate authority: tls.ca, a PEM file',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'trust its certificate authority: tls.ca, a PEM file',
  ERR_TLS_CERT_ALTNAME_INVALID:
    'use a name that the certificate is for, or set tls.servername where there is one',
  ERR_SSL_WRONG_VERSION_NUMBER: 'no TLS is spoken there: write http:// or redis://, or another port',
  ERR_SSL_PACKET_LENGTH_TOO_LONG: 'no TLS is spoken there: write http:// or redis://, or another port',
  EPROTO: 'TLS failed: is it spoken at that port?',
  LINK_LOCAL_ADDRESS: 'correct the name: it leads to where cloud machines ask for credentials',
}

const DEPTH = 6

/** The error at the bottom, in its own words, and what may cure it. */
export function causeOf(error: unknown): { readonly message: string; readonly cure: string | undefined } {
  let lowest: unknown = error
  const told: string[] = []
  for (let depth = 0; lowest instanceof Error && depth < DEPTH; depth += 1) {
    const below: unknown =
      lowest instanceof AggregateError && lowest.errors.length > 0 ? lowest.errors[0] : lowest.cause
    if (lowest instanceof BffError && below === undefined) break
    if (!(below instanceof Error)) break
    if (lowest instanceof BffError) told.push(lowest.message)
    lowest = below
  }
  const { message, code } = describeError(lowest)
  const isSaid = told.at(-1) !== undefined && !message.startsWith(told.at(-1)!)
  return {
    message: isSaid ? `${told.at(-1)}: ${message}` : message,
    cure: cureIn(CURES, code),
  }
}

/** The cure for a word or code. A provider may say `constructor`, which every object has. */
export function cureIn(
  cures: Readonly<Record<string, string>>,
  word: string | undefined,
): string | undefined {
  return word !== undefined && Object.hasOwn(cures, word) ? cures[word] : undefined
}
