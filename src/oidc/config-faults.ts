import type { Logger } from '../log.ts'
import type { GrantReaction } from './grant-errors.ts'
import type { ProviderRefusal } from './provider-errors.ts'

/** How a request for a resource's token ended, as a label: a reaction, or what a success was worth. */
export type GrantOutcome = 'renewed' | 'wrong_audience' | 'unusable_answer' | GrantReaction

/** Told of grants, for metrics; `error` is a word of a closed list. */
export type GrantObserver = {
  readonly grant: (resource: string, outcome: GrantOutcome) => void
  readonly configFault: (resource: string, error: string, isFault: boolean) => void
}

/** How one request ended, and what of a refusal may be logged. */
export type GrantResult = {
  readonly resource: string
  readonly outcome: GrantOutcome
  readonly refusal?: ProviderRefusal
}

const FAULTS: ReadonlySet<GrantOutcome> = new Set([
  'configuration',
  'route_configuration',
  'wrong_audience',
  'unusable_answer',
])
/** What the metric says beyond these is `other`: a provider must not make up labels. */
const KNOWN_ERRORS = new Set([
  ...['invalid_client', 'unauthorized_client', 'unsupported_grant_type', 'invalid_request', 'invalid_grant'],
  ...['invalid_scope', 'invalid_target', 'invalid_resource', 'access_denied'],
])

/**
 * What only the operator can cure is told once, when it begins and when it ends, however many users meet it; a resource
 * is well again with the next token for it.
 */
export function createConfigFaults({
  log,
  observe,
}: {
  readonly log: Logger
  readonly observe: GrantObserver
}) {
  const faults = new Map<string, string>()

  function begin(error: string, { resource, outcome, refusal }: GrantResult): void {
    const before = faults.get(resource)
    if (before === error) return
    if (before !== undefined) observe.configFault(resource, before, false)
    faults.set(resource, error)
    observe.configFault(resource, error, true)
    log.error(
      { resource, outcome, reason: error, ...refusal },
      'no token for this resource: the provider rejects how we are configured',
    )
  }

  function end(resource: string): void {
    const before = faults.get(resource)
    if (before === undefined) return
    faults.delete(resource)
    observe.configFault(resource, before, false)
    log.info({ resource, reason: before }, 'the provider gives tokens for this resource again')
  }

  return function note(result: GrantResult): void {
    const { resource, outcome, refusal } = result
    observe.grant(resource, outcome)
    if (outcome === 'renewed') end(resource)
    if (FAULTS.has(outcome)) begin(errorOf(outcome, refusal), result)
  }
}

function errorOf(outcome: GrantOutcome, refusal: ProviderRefusal | undefined): string {
  if (outcome === 'wrong_audience' || outcome === 'unusable_answer') return outcome
  const error = refusal?.oauthError
  return error !== undefined && KNOWN_ERRORS.has(error) ? error : 'other'
}
