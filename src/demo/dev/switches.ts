import type { IncomingMessage } from 'node:http'
import type { ScriptedProvider } from '../profiles/scripted-provider.ts'
import type { LiveLog } from './live-log.ts'
import type { RelayAnswer } from './relay.ts'

/** A session, for the panel: no cookie, no token. */
export type DevSession = {
  readonly person: string
  /** Names it in the log. */
  readonly id: string
  /** Seconds until its idle timeout. */
  readonly idleSeconds: number
  readonly userAgent: string
}

/** What the switches do with sessions; a person is a `sub`, and without one all are meant. Counts are of sessions. */
export type SessionControl = {
  list(): Promise<readonly DevSession[]>
  /** Ends sessions as a timeout does: nothing is revoked. */
  end(person?: string): Promise<number>
  /** Shortens what is left of the idle timeout, until the next use. */
  shorten(seconds: number, person?: string): Promise<number>
  /** Forgets access tokens, as if they had expired: the next request refreshes. */
  forgetAccessTokens(person?: string): Promise<number>
}

/** An API of the developer. */
export type DevApi = { readonly path: string; readonly audience: string | undefined }

export type SwitchesDeps = {
  readonly provider: Pick<
    ScriptedProvider,
    'ticketFor' | 'endGrants' | 'setDown' | 'setClaims' | 'persons' | 'hadSecondFactor'
  >
  readonly sessions: SessionControl
  readonly apis: readonly DevApi[]
  readonly secondFactorChallenge: string
  /** The URL of `B/login`. */
  readonly loginUrl: string
  readonly log: Pick<LiveLog, 'add'>
}

/** What a switch was told is wrong: names the field, the value and the cure. */
export class SwitchError extends Error {}

/** What came of a switch. */
export type SwitchResult = { readonly done: string; readonly url?: string; readonly count?: number }

type Input = Readonly<Record<string, unknown>>
/** By `path`, what each API does. */
type ApiState = { rejectsTokens: boolean; demandsSecondFactor: boolean }

/** Everything that a person or a test may change while the development server runs. */
export type Switches = ReturnType<typeof createSwitches>

/** Makes the switches. What they change is in memory: a restart puts all back but the sessions. */
export function createSwitches(deps: SwitchesDeps) {
  const { provider, sessions, log } = deps
  const states = new Map<string, ApiState>(
    deps.apis.map(({ path }) => [path, { rejectsTokens: false, demandsSecondFactor: false }]),
  )
  const claimsAtStart = new Map(provider.persons().map((person) => [person.sub, person]))
  let isProviderDown = false

  /** By name. Each throws SwitchError for an input that is wrong. */
  const all: Readonly<Record<string, (input: Input) => SwitchResult | Promise<SwitchResult>>> = {
    'sign-in': (input) => {
      const user = personIn(input)
      if (user === undefined) throw new SwitchError(`person is missing, e.g. ${personList()}`)
      const ticket = provider.ticketFor({ user, withSecondFactor: flagIn(input, 'secondFactor', false) })
      const query = new URLSearchParams({ returnUrl: returnUrlIn(input), login_hint: ticket })
      return {
        done: `sign in as ${user}: open the URL within a minute, once`,
        url: `${deps.loginUrl}?${query}`,
      }
    },
    'expire-session': async (input) => counted(await sessions.end(personIn(input)), 'expired'),
    idle: async (input) => {
      const seconds = numberIn(input, 'seconds', 10)
      const count = await sessions.shorten(seconds, personIn(input))
      return counted(count, `idle in ${seconds} s, unless used before`)
    },
    'expire-tokens': async (input) =>
      counted(
        await sessions.forgetAccessTokens(personIn(input)),
        'without access tokens: the next call refreshes',
      ),
    'revoke-tokens': async (input) => {
      const person = personIn(input)
      provider.endGrants(person)
      return counted(await sessions.forgetAccessTokens(person), 'without a good refresh token')
    },
    'provider-down': (input) => {
      isProviderDown = flagIn(input, 'on', true)
      provider.setDown(isProviderDown)
      return { done: isProviderDown ? 'the provider is down' : 'the provider is up again' }
    },
    'reject-token': (input) => setOnApis(input, 'rejectsTokens', 'rejects our tokens'),
    'second-factor': (input) => setOnApis(input, 'demandsSecondFactor', 'demands a second factor'),
    role: async (input) => {
      const user = personIn(input)
      const role = textIn(input, 'role')
      if (user === undefined) throw new SwitchError(`person is missing, e.g. ${personList()}`)
      const claim = input.claim === undefined ? 'roles' : textIn(input, 'claim')
      const isOn = flagIn(input, 'on', true)
      const claims = provider.persons().find(({ sub }) => sub === user) ?? {}
      const before = (claims as Input)[claim]
      const others = (Array.isArray(before) ? before : []).filter((one) => one !== role)
      provider.setClaims(user, { ...claims, [claim]: isOn ? [...others, role] : others })
      await sessions.forgetAccessTokens(user)
      return {
        done: `${user} ${isOn ? 'has' : 'has no longer'} ${role} in ${claim}, from the next refresh on`,
      }
    },
    reset: () => {
      isProviderDown = false
      provider.setDown(false)
      for (const state of states.values())
        Object.assign(state, { rejectsTokens: false, demandsSecondFactor: false })
      for (const [user, person] of claimsAtStart) provider.setClaims(user, person)
      return { done: 'every switch is back where it was at the start' }
    },
  }

  function setOnApis(input: Input, key: keyof ApiState, what: string): SwitchResult {
    const isOn = flagIn(input, 'on', true)
    const path = input.path === undefined ? undefined : textIn(input, 'path')
    if (path !== undefined && !states.has(path))
      throw new SwitchError(`path "${path}" is no API: use one of ${[...states.keys()].join(', ')}`)
    for (const [one, state] of states) if (path === undefined || one === path) state[key] = isOn
    return { done: `${path ?? 'each API'} ${isOn ? what : `no longer ${what}`}` }
  }

  function personIn({ person }: Input): string | undefined {
    if (person === undefined || person === null || person === '') return undefined
    if (provider.persons().some(({ sub }) => sub === person)) return String(person)
    throw new SwitchError(`person ${JSON.stringify(person)} is not known: use one of ${personList()}`)
  }

  const personList = () =>
    provider
      .persons()
      .map(({ sub }) => sub)
      .join(', ')

  return {
    names: Object.keys(all),
    /** Throws SwitchError. */
    async change(name: string, input: Input): Promise<SwitchResult> {
      const change = Object.hasOwn(all, name) ? all[name] : undefined
      if (!change) throw new SwitchError(`no switch "${name}": use one of ${Object.keys(all).join(', ')}`)
      const result = await change(input)
      log.add({ kind: 'switch', what: result.done })
      return result
    },
    async state() {
      return {
        persons: provider.persons(),
        sessions: await sessions.list(),
        apis: deps.apis.map((api) => ({ ...api, ...states.get(api.path) })),
        isProviderDown,
      }
    },
    /** What an API answers in place of its own answer. */
    answerFor(path: string, { headers }: Pick<IncomingMessage, 'headers'>): RelayAnswer | undefined {
      const token = /^(?:Bearer|DPoP) (\S+)$/i.exec(headers.authorization ?? '')?.[1]
      const state = states.get(path)
      if (token === undefined || state === undefined) return undefined
      if (state.rejectsTokens)
        return unauthorized(
          'Bearer error="invalid_token", error_description="rejected by the switch of cloakroom dev"',
        )
      if (!state.demandsSecondFactor || provider.hadSecondFactor(token)) return undefined
      return unauthorized(deps.secondFactorChallenge)
    },
  }
}

function unauthorized(challenge: string): RelayAnswer {
  const problem = { type: 'about:blank', title: 'Unauthorized', status: 401 }
  return {
    status: 401,
    headers: { 'www-authenticate': challenge, 'content-type': 'application/problem+json' },
    body: JSON.stringify(problem),
  }
}

function counted(count: number, what: string): SwitchResult {
  return { done: `${count} ${count === 1 ? 'session' : 'sessions'}: ${what}`, count }
}

function flagIn(input: Input, name: string, otherwise: boolean): boolean {
  const value = input[name] ?? otherwise
  if (typeof value === 'boolean') return value
  throw new SwitchError(`${name} must be true or false (got ${JSON.stringify(value)})`)
}

function numberIn(input: Input, name: string, otherwise: number): number {
  const value = input[name] ?? otherwise
  if (typeof value === 'number' && value >= 1 && value <= 86_400) return value
  throw new SwitchError(`${name} must be a number from 1 to 86400, e.g. 10 (got ${JSON.stringify(value)})`)
}

function textIn(input: Input, name: string): string {
  const value = input[name]
  if (typeof value === 'string' && value !== '' && value.length <= 200) return value
  throw new SwitchError(`${name} must be a text (got ${JSON.stringify(value)})`)
}

/** Cloakroom judges it again. */
function returnUrlIn({ returnUrl = '/' }: Input): string {
  if (typeof returnUrl === 'string' && /^\/(?![/\\])/.test(returnUrl)) return returnUrl
  throw new SwitchError(
    `returnUrl must be a path of the application, e.g. / (got ${JSON.stringify(returnUrl)})`,
  )
}
