import { systemClock, type Timer } from '../../async/clock.ts'
import { createLogThrottle } from '../../async/log-throttle.ts'
import { type BffError, describeError } from '../../errors.ts'
import type { LogFields, Logger } from '../../log.ts'
import type { ProviderRefusal } from '../token-endpoint/provider-errors.ts'
import type { GrantReaction } from '../token-endpoint/reactions.ts'

/** How a request for a resource's token ended, as a label: a reaction, or what a success was worth. */
export type GrantOutcome =
  | 'renewed'
  /** The same answer is counted as `renewed` too. */
  | 'id_token_ignored'
  | 'wrong_audience'
  | 'scope_not_granted'
  | 'unusable_answer'
  | 'no_refresh_token'
  | GrantReaction

/** Told of grants, for metrics; `error` is a word of a closed list. */
export type GrantObserver = {
  /** `lifetimeMs`: how long the token that came lives. */
  readonly grant: (resource: string, outcome: GrantOutcome, lifetimeMs?: number) => void
  readonly configFault: (resource: string, error: string, isFault: boolean) => void
}

/** How one request ended, and what of a refusal may be logged. */
export type GrantResult = {
  readonly resource: string
  readonly outcome: GrantOutcome
  /** Of the token that came. */
  readonly lifetimeMs?: number
  readonly error?: BffError
  readonly refusal?: ProviderRefusal
  /** It is a matter of one user and no fault of the configuration, whatever its outcome. */
  readonly isOfUser?: boolean
  /** What a token that must not be used was to be for, and what it is for. */
  readonly expected?: string
  readonly actual?: string
}

/** The steps of a sign-in whose failure may be a fault of our configuration; what the metric has for a resource. */
export type CheckedStep = 'discovery' | 'par' | 'code' | 'userinfo'

export type ConfigFaultsDeps = {
  readonly log: Logger
  readonly observe: GrantObserver
  /** What the log says of a refusal of the client itself: how it authenticates, and what cures it. */
  readonly clientFacts?: () => LogFields
  readonly monotonicNow: () => number
}

/** What is told of the token requests of one configuration. */
export type ConfigFaults = {
  /** Counts one request; returns whether the log knows of its failure, which it does not if it concerns one user only. */
  note(result: GrantResult): boolean
  /** How a step of a sign-in ended that our configuration decides: well, or with this error. */
  noteSignIn(step: CheckedStep, failure?: { readonly error: BffError; readonly isOwnRequest?: boolean }): void
  /** Says nothing more, whatever answer comes late: another configuration is in use. */
  retire(): void
}

const FAULTS: ReadonlySet<GrantOutcome> = new Set([
  'configuration',
  'route_configuration',
  'wrong_audience',
  'scope_not_granted',
  'unusable_answer',
  'no_refresh_token',
])
const PASSING: ReadonlySet<GrantOutcome> = new Set(['retry_later', 'loop'])
/** What the metric says beyond these is `other`: a provider must not make up labels. */
const KNOWN_ERRORS = new Set([
  ...['invalid_client', 'unauthorized_client', 'unsupported_grant_type', 'invalid_request', 'invalid_grant'],
  ...['invalid_scope', 'invalid_target', 'invalid_resource', 'access_denied'],
  ...['invalid_redirect_uri', 'invalid_request_object', 'unsupported_response_type'],
])
/** Errors that only our configuration can cause: no made-up code or parameter of a client brings them about. */
const OURS_ALONE = new Set([
  ...['invalid_client', 'unauthorized_client', 'unsupported_grant_type'],
  ...['invalid_scope', 'invalid_target', 'invalid_resource'],
])

/**
 * A fault is over when the provider has answered otherwise, with a token or another fault, and this fault has not come
 * again for so long. The first token does not end it: half of the provider's servers may have the new secret, or one of
 * two users may lack a scope. Silence does not end it either. Refusals are remembered for seconds, so a fault that goes on
 * comes again within a minute, and begins once at most in that time.
 */
const SETTLED_MS = 60_000

type Fault = {
  readonly resource: string
  readonly error: string
  /** When the provider first said something else, and the timer that runs since. */
  betterSince: number | undefined
  timer: Timer | undefined
}

/** What only the operator can cure is told once, when it begins and when it ends, however many users meet it. */
export function createConfigFaults(deps: ConfigFaultsDeps): ConfigFaults {
  const { log, observe, monotonicNow } = deps
  const faults = new Map<string, Fault>()
  const throttle = createLogThrottle({ monotonicNow })
  let isRetired = false

  function begin({ resource, error }: Pick<Fault, 'resource' | 'error'>): Fault {
    const fault: Fault = { resource, error, betterSince: undefined, timer: undefined }
    faults.set(keyOf(fault), fault)
    observe.configFault(resource, error, true)
    return fault
  }

  function end(fault: Fault): void {
    fault.timer?.cancel()
    faults.delete(keyOf(fault))
    throttle.forget(keyOf(fault))
    observe.configFault(fault.resource, fault.error, false)
    log.info(
      { resource: fault.resource, reason: fault.error },
      'the provider no longer rejects how we are configured for this resource',
    )
  }

  function meet(error: string, result: GrantResult): void {
    const { resource } = result
    const fault = faults.get(keyOf({ resource, error })) ?? begin({ resource, error })
    fault.timer?.cancel()
    fault.timer = fault.betterSince = undefined
    const count = throttle.count(keyOf(fault))
    if (count === undefined) return
    const message = resource.startsWith('(')
      ? 'nobody can sign in: the provider rejects how we are configured'
      : 'no token for this resource: the provider rejects how we are configured'
    const isOfClient = error === 'invalid_client' || result.refusal?.providerStatus === 401
    const client = isOfClient ? deps.clientFacts?.() : undefined
    log.error({ ...fieldsOf(result), ...client, reason: error, count }, message)
  }

  /** No request fails because of it, so it is no fault of the configuration; an operator should look at it all the same. */
  function alarm(result: GrantResult): void {
    const count = throttle.count(`${result.resource} ${result.outcome}`)
    if (count === undefined) return
    log.error({ ...fieldsOf(result), count }, 'the ID token of a refresh failed its checks, and is not used')
  }

  function settle(resource: string, besides: string | undefined): void {
    for (const fault of faults.values()) {
      if (fault.resource !== resource || fault.error === besides) continue
      fault.betterSince ??= monotonicNow()
      fault.timer ??= systemClock.after(SETTLED_MS, () => end(fault)).unref()
      if (monotonicNow() - fault.betterSince >= SETTLED_MS) end(fault)
    }
  }

  return {
    note(result) {
      const { resource, outcome, lifetimeMs } = result
      observe.grant(resource, outcome, lifetimeMs)
      const error = FAULTS.has(outcome) && !result.isOfUser ? errorOf(result) : undefined
      const isPassing = PASSING.has(outcome)
      const isTold = error !== undefined || isPassing
      if (isRetired) return isTold
      if (error !== undefined || outcome === 'renewed') settle(resource, error)
      if (error !== undefined) meet(error, result)
      const count = isPassing ? throttle.count(`${resource} ${outcome} ${result.error?.code}`) : undefined
      if (count !== undefined) log.warn({ ...fieldsOf(result), count }, 'no token for this resource just now')
      if (outcome === 'id_token_ignored') alarm(result)
      return isTold
    },
    noteSignIn(step, failure) {
      if (isRetired) return
      const resource = `(${step})`
      const error = failure && signInFault(step, failure)
      if (failure && error === undefined) return
      settle(resource, error)
      if (failure && error !== undefined) {
        meet(error, { resource, outcome: 'configuration', error: failure.error })
      }
    },
    retire() {
      isRetired = true
      for (const { timer } of faults.values()) timer?.cancel()
      faults.clear()
    },
  }
}

function keyOf({ resource, error }: Pick<Fault, 'resource' | 'error'>): string {
  return `${resource} ${error}`
}

/** The fault that a failed sign-in shows, as a word of a closed list; undefined if it shows none. */
function signInFault(
  step: CheckedStep,
  { error: { code, logged }, isOwnRequest = false }: { error: BffError; isOwnRequest?: boolean },
): string | undefined {
  // Anybody may write an error into his own authorization response.
  if (code !== 'provider_rejected' || logged?.step === 'authorization') return undefined
  if (step === 'discovery' || step === 'userinfo') return step
  if (logged?.step === 'keys') return 'keys'
  const word = String(logged?.oauthError)
  if (OURS_ALONE.has(word)) return word
  if (!isOwnRequest) return undefined
  return KNOWN_ERRORS.has(word) ? word : 'other'
}

function fieldsOf({ resource, outcome, error, refusal, expected, actual }: GrantResult): LogFields {
  return {
    ...{ resource, outcome, ...refusal, ...error?.logged },
    ...(expected === undefined ? {} : { expected, actual }),
    ...(error ? { code: error.code } : {}),
    ...(error?.cause ? { err: describeError(error.cause) } : {}),
  }
}

/** What the provider has no error of its own for. */
const OWN_WORDS: ReadonlySet<GrantOutcome> = new Set([
  'wrong_audience',
  'scope_not_granted',
  'unusable_answer',
  'no_refresh_token',
])

function errorOf({ outcome, refusal, error }: GrantResult): string {
  if (OWN_WORDS.has(outcome)) return outcome
  const word = String(refusal?.oauthError ?? error?.logged?.oauthError)
  return KNOWN_ERRORS.has(word) ? word : 'other'
}
