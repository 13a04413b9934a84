import { setTimeout as delay } from 'node:timers/promises'
import { field, sendJson, startLocalServer } from '../kit/local-server.ts'
import { startRotatingProvider } from '../kit/provider/rotating-provider.ts'
import { startUpstream } from '../kit/upstream/upstream.ts'

// What runs in the pod `parts`: an identity provider that ends a grant when a refresh token comes twice, an API that verifies
// the access tokens it gets, and a listener by which the run changes the provider and reads what it has counted.

/** What the run reads at `/counters`. */
export type PartsCounters = {
  readonly refreshes: number
  readonly reuseAlarms: number
  /** Token requests that were refused for their client secret. */
  readonly refusedClients: number
  /** Token requests by client secret. */
  readonly bySecret: Readonly<Record<string, number>>
}

/** Access tokens are renewed at half of their life. */
const TOKEN_SECONDS = 30
const FORGET_MS = 5_000
const host = '0.0.0.0'

const { ISSUER, AUDIENCE, CLIENT_SECRET } = process.env
const clientSecret = String(CLIENT_SECRET)
let goodSecrets: readonly string[] = [clientSecret]
let refusedClients = 0
const bySecret: Record<string, number> = {}
let signIns = 0

const provider = await startRotatingProvider({
  ...{ host, port: 8000, issuer: String(ISSUER), clientSecret },
  control: {
    accessTokenSeconds: TOKEN_SECONDS + 1,
    // `exp` is in whole seconds, so that an API may refuse a token almost a second before this is over.
    editAnswer(answer) {
      answer.expires_in = TOKEN_SECONDS
    },
    intercept(request, res) {
      if (request.path === '/authorize') provider.control.user = `user-${++signIns}`
      if (request.path !== '/token') return false
      const secret = field(request.form, 'client_secret') ?? ''
      bySecret[secret] = (bySecret[secret] ?? 0) + 1
      if (goodSecrets.includes(secret)) {
        // The provider itself knows one only.
        for (const pair of request.form) if (pair[0] === 'client_secret') pair[1] = clientSecret
        return false
      }
      refusedClients += 1
      sendJson(res, 401, { error: 'invalid_client' })
      return true
    },
  },
})

const api = await startUpstream({
  ...{ host, port: 8001, jwks: provider.signer.jwks(), issuer: provider.issuer, audience: String(AUDIENCE) },
  async handle({ query }) {
    await delay(Number(field(query, 'delay') ?? 0))
    return false
  },
})
/** Pages, without a token. */
const spa = await startUpstream({ host, port: 8002 })

const control = await startLocalServer(
  (request, res) => {
    if (request.path === '/secrets') goodSecrets = JSON.parse(request.body)
    const { refreshCalls, reuseDetected } = provider.counters
    const counters: PartsCounters = {
      ...{ refreshes: refreshCalls, reuseAlarms: reuseDetected },
      ...{ refusedClients, bySecret },
    }
    sendJson(res, 200, counters)
  },
  8003,
  host,
)

// They record every request, and this process stays.
setInterval(() => {
  for (const { requests } of [provider, api, spa, control]) requests.length = 0
  provider.issuedSecrets.length = 0
}, FORGET_MS)
process.once('SIGTERM', () => process.exit(0))
