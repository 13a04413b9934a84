import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { loadStaticFiles, sendStaticFile } from '../static-files.ts'
import type { Person, RegisteredClient } from './identity-provider-options.ts'
import { createSignIn, type Interactions } from './sign-in.ts'

/** What the provider's listener puts together. */
export type ProviderListenerDeps = {
  /** The protocol's own endpoints. */
  readonly oidc: (req: IncomingMessage, res: ServerResponse) => unknown
  readonly interactions: Interactions
  readonly persons: Map<string, Person>
  readonly clients: readonly RegisteredClient[]
  /** The `acr` of a sign-in with a second factor; absent: none is asked for. */
  readonly secondFactorAcr?: string
}

/** The whole of the provider's HTTP: pages of its own, their assets, and the protocol behind them. */
export function createProviderListener({
  oidc,
  interactions,
  persons,
  clients,
  secondFactorAcr,
}: ProviderListenerDeps): RequestListener {
  const assets = loadStaticFiles(new URL('./pages/', import.meta.url))
  const contentSecurityPolicy = pagePolicy(clients)
  const clientNames = new Map(clients.map(({ clientId, clientName }) => [clientId, clientName ?? clientId]))
  const signIn = createSignIn({ interactions, persons, clientNames, sendPage, secondFactorAcr })

  return function identityProvider(req, res) {
    const path = req.url?.split('?', 1)[0] ?? '/'
    const asset = path.startsWith('/assets/') ? assets.get(path.slice('/assets/'.length)) : undefined
    res.setHeader('content-security-policy', contentSecurityPolicy)
    res.setHeader('referrer-policy', 'no-referrer')
    if (asset) sendStaticFile(res, asset, { 'cache-control': 'no-cache' })
    else if (path.startsWith('/interaction/')) void signIn(req, res)
    else void oidc(req, res)
  }
}

function sendPage(res: ServerResponse, status: number, html: string): void {
  res.writeHead(status, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' })
  res.end(html)
}

/** Browsers apply form-action to the redirects after a form too, so the relying parties' origins belong in it. */
function pagePolicy(clients: readonly RegisteredClient[]): string {
  const targets = clients.flatMap((client) => [
    ...client.redirectUris,
    ...(client.postLogoutRedirectUris ?? []),
  ])
  const origins = new Set(targets.map((uri) => new URL(uri).origin).filter((origin) => origin !== 'null'))
  return [
    "default-src 'none'",
    "style-src 'self'",
    "script-src 'self'",
    "img-src 'self'",
    `form-action ${["'self'", ...origins].join(' ')}`,
    "base-uri 'none'",
    "frame-ancestors 'none'",
  ].join('; ')
}
