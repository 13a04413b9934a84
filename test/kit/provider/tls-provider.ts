import { generateKeyPairSync, randomBytes, X509Certificate } from 'node:crypto'
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { ClientMetadata, Configuration, JWK, KoaContextWithOIDC, Provider } from 'oidc-provider'
import { selfSigned } from '../self-signed.ts'
import type { Scope } from '../shops/shop.ts'

/** oidc-provider behind TLS, with one address for everybody and one that asks for client certificates. */
export type TlsProvider = {
  /** `https://localhost:PORT`. */
  readonly issuer: string
  /** The certificate that its clients must trust. */
  readonly ca: string
  /** Where browsers without TLS reach it. */
  readonly plainUrl: string
  readonly provider: Provider
  /** `METHOD path status` of every request, at the address that asks for certificates with `mtls ` before it. */
  readonly answered: string[]
}

/** What the package has no default for. */
export type TlsProviderOptions = {
  readonly clients: readonly ClientMetadata[]
  /** Claims of every user, beside `sub`: each in the scope that is named here. */
  readonly claims?: Readonly<Record<string, Readonly<Record<string, unknown>>>>
  /** The scope of each resource (RFC 8707). */
  readonly resources: Readonly<Record<string, string>>
}

/** Starts the npm package with its own pages. Plain http, for the scripted browser, says that it came by TLS. */
export async function startTlsProvider(t: Scope, options: TlsProviderOptions): Promise<TlsProvider> {
  const identity = selfSigned(['localhost'])
  const answered: string[] = []
  let handle: RequestListener = (_req, res) => void res.writeHead(503).end()
  const recorded =
    (prefix: string): RequestListener =>
    (req, res) => {
      const { pathname } = new URL(req.url ?? '/', 'http://x')
      res.once('finish', () => answered.push(`${prefix}${req.method} ${pathname} ${res.statusCode}`))
      handle(req, res)
    }
  const secure = createTlsServer(identity, recorded(''))
  const certified = createTlsServer(
    { ...identity, requestCert: true, rejectUnauthorized: false },
    recorded('mtls '),
  )
  const [port, certifiedPort] = await Promise.all([secure, certified].map(listening(t)))
  const issuer = `https://localhost:${port}`
  const plain = createServer((req, res) => {
    Object.assign(req.headers, { 'x-forwarded-proto': 'https', host: `localhost:${port}` })
    recorded('')(req, res)
  })
  const plainUrl = `http://127.0.0.1:${await listening(t)(plain)}`
  const provider = await createProvider(issuer, `https://localhost:${certifiedPort}`, options)
  handle = provider.callback()
  return { issuer, ca: identity.cert, plainUrl, provider, answered }
}

const listening = (t: Scope) => async (server: Server) => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return (server.address() as AddressInfo).port
}

async function createProvider(
  issuer: string,
  certified: string,
  { clients, claims = {}, resources }: TlsProviderOptions,
): Promise<Provider> {
  const all = Object.assign({}, ...Object.values(claims)) as Record<string, unknown>
  const names = Object.entries(claims).map(([scope, ofScope]) => [scope, Object.keys(ofScope)])
  const aliases = {
    token: '/token',
    pushed_authorization_request: '/request',
    revocation: '/token/revocation',
  }
  const configuration: Configuration = {
    clients: [...clients],
    claims: Object.fromEntries(names),
    scopes: ['openid', 'offline_access', ...Object.keys(claims)],
    acrValues: ['gold'],
    findAccount: (_ctx, sub) => ({ accountId: sub, claims: () => ({ sub, ...all }) }),
    jwks: { keys: [newKey()] },
    cookies: { keys: [randomBytes(32).toString('base64url')] },
    rotateRefreshToken: true,
    // Its own; named, it does not remark on them.
    ttl: {
      ...{ AccessToken: 300, Interaction: 3600, IdToken: 3600 },
      ...{ Session: 1_209_600, Grant: 1_209_600, RefreshToken: 1_209_600 },
    },
    clientAuthMethods: ['client_secret_jwt', 'private_key_jwt', 'tls_client_auth'],
    discovery: {
      mtls_endpoint_aliases: Object.fromEntries(
        Object.entries(aliases).map(([name, path]) => [`${name}_endpoint`, certified + path]),
      ),
    },
    features: {
      revocation: {
        enabled: true,
        allowedPolicy: async (_ctx, client, token) => token.clientId === client.clientId,
      },
      mTLS: {
        ...{ enabled: true, tlsClientAuth: true },
        getCertificate: (ctx: KoaContextWithOIDC) => certificateOf(ctx.req),
        // Each is its own authority here.
        certificateAuthorized: (ctx: KoaContextWithOIDC) => certificateOf(ctx.req) !== undefined,
        certificateSubjectMatches: (ctx: KoaContextWithOIDC, _property: string, expected: string) =>
          new X509Certificate(certificateOf(ctx.req)!).subject === expected,
      },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, indicator) => ({
          ...{ audience: indicator, scope: resources[indicator] ?? '', accessTokenTTL: 300 },
          accessTokenFormat: 'jwt',
        }),
      },
    },
  }
  const provider = await quietly(async () => {
    const { default: ProviderClass } = await import('oidc-provider')
    return new ProviderClass(issuer, configuration)
  })
  provider.proxy = true
  return provider
}

/** PEM; undefined where none was sent. */
function certificateOf(req: IncomingMessage): string | undefined {
  const socket = req.socket as Partial<TLSSocket>
  const raw = socket.getPeerCertificate?.().raw
  return raw && new X509Certificate(raw).toString()
}

function newKey(): JWK {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  return { ...privateKey.export({ format: 'jwk' }), kid: 'k1', alg: 'RS256', use: 'sig' } as JWK
}

/** Without the package's remarks on what belongs to production. */
async function quietly<T>(make: () => Promise<T>): Promise<T> {
  const { warn, info } = console
  console.warn = () => {}
  console.info = () => {}
  try {
    return await make()
  } finally {
    Object.assign(console, { warn, info })
  }
}
