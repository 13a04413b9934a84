import type { ServerResponse } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { jwtClaims } from '../../src/demo/scripted/signing.ts'
import { dropConnection, field, type RecordedRequest, sendJson } from '../kit/local-server.ts'

/** What goes wrong with one token request. */
export type TokenFault =
  | { readonly kind: 'drop-before' }
  | { readonly kind: 'drop-after' }
  | { readonly kind: 'status'; readonly status: number }
  /** The provider decides at once and answers late. */
  | { readonly kind: 'delay'; readonly ms: number }

/** One refresh token shown to the provider, and what became of the answer. Times in epoch ms. */
export type Presentation = {
  readonly token: string
  /** Name and life of the replica that presented it. */
  readonly replica: string
  readonly resource: string
  readonly receivedAt: number
  readonly fault: TokenFault['kind'] | undefined
  /** `reuse`: spent before. `undecided`: the provider did nothing. */
  verdict: 'pending' | 'rotated' | 'reuse' | 'refused' | 'undecided'
  /** The refresh token that took its place. */
  successor: string | undefined
  /** `dropped`: by us. `cut`: the replica hung up, or died. */
  fate: 'pending' | 'delivered' | 'dropped' | 'cut'
  endedAt: number | undefined
}

/** Every refresh token with its user and its presentations, in order. */
export type RefreshLedger = {
  readonly presentations: readonly Presentation[]
  userOf(token: string): string | undefined
  presentationsOf(token: string): readonly Presentation[]
  /** For `control.intercept` of the rotating provider. */
  intercept(request: RecordedRequest, res: ServerResponse): Promise<boolean>
}

type Fate = Presentation['fate']

/** Watches a provider's token endpoint from outside, and disturbs it as `chooseFault` says. */
export function createRefreshLedger(deps: {
  tokenPath: string
  chooseFault: (leg: 'code' | 'refresh') => TokenFault | undefined
}): RefreshLedger {
  const presentations: Presentation[] = []
  const byToken = new Map<string, Presentation[]>()
  const users = new Map<string, string>()

  function begin(request: RecordedRequest, token: string, fault: TokenFault | undefined): Presentation {
    const presentation: Presentation = {
      token,
      replica: field(request.query, 'replica') ?? '?',
      resource: field(request.form, 'resource') ?? '?',
      receivedAt: Date.now(),
      fault: fault?.kind,
      ...{ verdict: 'pending', successor: undefined, fate: 'pending', endedAt: undefined },
    }
    presentations.push(presentation)
    byToken.set(token, [...(byToken.get(token) ?? []), presentation])
    return presentation
  }

  function learn(body: Record<string, unknown>, presentation: Presentation | undefined): void {
    const { refresh_token: issued, access_token: accessToken } = body
    if (typeof issued === 'string') users.set(issued, String(jwtClaims(String(accessToken))?.sub))
    if (!presentation) return
    if (typeof issued === 'string') {
      presentation.verdict = 'rotated'
      presentation.successor = issued
    } else {
      const isReuse = body.error_description === 'refresh token already used'
      presentation.verdict = isReuse ? 'reuse' : 'refused'
    }
  }

  async function intercept(request: RecordedRequest, res: ServerResponse): Promise<boolean> {
    if (request.path !== deps.tokenPath) return false
    const token = field(request.form, 'refresh_token')
    const fault = deps.chooseFault(token === undefined ? 'code' : 'refresh')
    const presentation = token === undefined ? undefined : begin(request, token, fault)
    const end = (fate: Fate) => {
      if (presentation?.fate !== 'pending') return
      presentation.fate = fate
      presentation.endedAt = Date.now()
    }
    res.once('finish', () => end('delivered'))
    res.once('close', () => end('cut'))
    if (fault?.kind === 'drop-before' || fault?.kind === 'status') {
      if (presentation) presentation.verdict = 'undecided'
      if (fault.kind === 'status') sendJson(res, fault.status, { error: 'temporarily_unavailable' })
      else {
        end('dropped')
        dropConnection(res)
      }
      return true
    }
    onAnswer(res, async (body) => {
      learn(body, presentation)
      if (fault?.kind === 'delay') await delay(fault.ms)
      if (fault?.kind !== 'drop-after') return true
      end('dropped')
      dropConnection(res)
      return false
    })
    return false
  }

  return {
    presentations,
    userOf: (token) => users.get(token),
    presentationsOf: (token) => byToken.get(token) ?? [],
    intercept,
  }
}

/** Calls back with the answer before its first byte leaves; it leaves when that resolves with true. */
function onAnswer(res: ServerResponse, callback: (body: Record<string, unknown>) => Promise<boolean>): void {
  const end = res.end.bind(res) as (text: string) => ServerResponse
  res.end = ((text: string) => {
    void callback(JSON.parse(text)).then((mayLeave) => {
      if (mayLeave && !res.destroyed) end(text)
    })
    return res
  }) as typeof res.end
}
