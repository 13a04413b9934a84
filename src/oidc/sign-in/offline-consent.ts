import type { ProviderConfig } from '../../config/config.ts'

/** What is remembered of providers, for longer than one configuration: whether they want consent for `offline_access`. */
export type OfflineConsentMemory = Map<string, ConsentExperience>

type ConsentExperience = {
  /** A sign-in repeated with prompt=consent brought the refresh token that was missing before. */
  isNeeded: boolean
  /** How many repetitions in a row did not help, and when the last of them ended; epoch ms. */
  inVain: number
  lastAt: number
}

/** One sign-in, as far as consent matters. */
export type ConsentAttempt = {
  /** The `prompt` of the authorization request, as it was sent. */
  readonly prompt?: string | undefined
  /** It is the repetition of a sign-in that brought no refresh token. */
  readonly isRepeated?: boolean | undefined
}

/** When a sign-in asks with prompt=consent, because its provider grants no `offline_access` without (Core §11). */
export type OfflineConsent = {
  /** The `prompt` to send in the place of this one. */
  promptFor(prompt: string | undefined, attempt: Pick<ConsentAttempt, 'isRepeated'>): string | undefined
  /** Told whether a finished sign-in brought a refresh token; whether it is to be repeated with prompt=consent. */
  isToBeRepeated(attempt: ConsentAttempt, hasRefreshToken: boolean): boolean
  /** Told of a sign-in that the provider refused at its authorization endpoint. */
  refused(attempt: ConsentAttempt): void
}

const ATTEMPTS_IN_VAIN = 3
const VAIN_FOR_MS = 3_600_000

/**
 * A provider is free to leave `offline_access` out without prompt=consent (OpenID Connect Core §11), and to want none. With
 * `auto` that is learned from what it does: one repetition shows it. Where repetitions do not help, because the client may
 * have no refresh tokens, because users decline, or because the provider refuses the prompt,
 * they stop for an hour, so that users do not sign in twice in vain.
 *
 * @param memory shared by all configurations. @param monotonicNow ms.
 */
export function createOfflineConsent(
  provider: Pick<ProviderConfig, 'issuer' | 'clientId' | 'scopes' | 'offlineConsent'>,
  { memory, monotonicNow }: { memory: OfflineConsentMemory; monotonicNow: () => number },
): OfflineConsent {
  const { offlineConsent, issuer, clientId } = provider
  const isWanted = provider.scopes.includes('offline_access') && offlineConsent !== 'never'
  const key = JSON.stringify([issuer, clientId])
  const experience = () => memory.get(key) ?? { isNeeded: false, inVain: 0, lastAt: 0 }
  const isAskedAtOnce = () => isWanted && (offlineConsent === 'always' || experience().isNeeded)

  function learn({ isRepeated }: ConsentAttempt, hasRefreshToken: boolean): void {
    if (!isRepeated) return
    const { isNeeded, inVain } = experience()
    memory.set(key, {
      isNeeded: isNeeded || hasRefreshToken,
      inVain: hasRefreshToken ? 0 : inVain + 1,
      lastAt: monotonicNow(),
    })
  }

  function isInVain(): boolean {
    const { inVain, lastAt } = experience()
    return inVain >= ATTEMPTS_IN_VAIN && monotonicNow() < lastAt + VAIN_FOR_MS
  }

  return {
    // A provider that does not know prompt=consent would refuse every sign-in that has it.
    refused: (attempt) => learn(attempt, false),
    promptFor: (prompt, { isRepeated }) => (isRepeated || isAskedAtOnce() ? withConsent(prompt) : prompt),
    isToBeRepeated(attempt, hasRefreshToken) {
      learn(attempt, hasRefreshToken)
      const hadItsChance = attempt.isRepeated || withConsent(attempt.prompt) === attempt.prompt
      return !hasRefreshToken && isWanted && (!hadItsChance || isCreation(attempt)) && !isInVain()
    },
  }
}

/**
 * The same `prompt` with `consent`. As it is with `none`, which stands alone (OpenID Connect Core §3.1.2.1), and with
 * `create`, which should (Initiating User Registration §4).
 */
export function withConsent(prompt: string | undefined): string {
  const prompts = (prompt ?? '').split(' ').filter(Boolean)
  if (prompts.some((one) => one === 'none' || one === 'create')) return prompts.join(' ')
  return [...new Set([...prompts, 'consent'])].join(' ')
}

/** One who has just made his account is asked in a second step. */
function isCreation({ prompt, isRepeated }: ConsentAttempt): boolean {
  return !isRepeated && prompt?.split(' ').includes('create') === true
}
